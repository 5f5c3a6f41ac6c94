"""Does `marquee` rank better than the build that its recipe describes, on identical rows?

    python benchmarks/recipe_ranking_pairs.py [--data ml-100k ml-latest-small] [--seeds 0 1 2 3 4]

`leave-last`, test rows, the retrieval head alone; the seed draws the order of tied times and the start of training. The
recipe's build is the log-linear head and a quarter of its closed form on ML-100K, and its closed form of rank 256 on
latest-small, with its constants; both share the log-linear head's memories of 2 and 12 events, where the recipe has
1 and 10 for single parts (the difference is within chance on validation rows: docs/experiments.md). Each user's
difference in NDCG@10, mean over seeds, is drawn again 10,000 times for the interval (Efron & Tibshirani 1993, section
13.3). About 8 minutes of one core; what was fitted is kept in .run, so that it can be stopped and started. Needs
MARQUEE_DATA.
"""

import argparse
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from benchmarks.record import record
from trainer.dataset import Dataset
from trainer.evaluation import evaluate
from trainer.fits import silent
from trainer.fits.marquee import Options, fit
from trainer.fits.marquee_ranking import DENSE_GAIN
from trainer.metrics import ndcg_at_k
from trainer.readers.read_options import ReadOptions
from trainer.snapshot import Parts, Snapshot, divide, take_snapshot
from two_tower.models.marquee import Marquee

KEPT = Path(".run/recipe_ranking_pairs")

RECIPE_GAIN = 0.25
"""Of the closed form beside the log-linear head on ML-100K, where the recipe's other constants are the defaults."""

RECIPE_ON_SPARSE = Options(
    ranking_epochs=0, closed_size=256, ease_ridge=300.0, sequential_ridge=500.0, popularity_power=0.1
)
"""On latest-small."""

DATA = ("ml-100k", "ml-latest-small")


def fit_both(parts: Parts, data: Dataset, seed: int) -> tuple[Marquee, Marquee]:
    """Returns `marquee` and the recipe's build."""
    rows = replace(data, interactions=parts.train)
    ours = fit(rows, Options(), seed=seed, progress=silent)
    if data.name != "ml-100k":
        return ours, fit(rows, RECIPE_ON_SPARSE, seed=seed, progress=silent)
    # The closed form's columns stand beside the others: its weight is the length of the movies' side.
    # Cloned, for the tensors of a model are its own.
    tensors = {name: tensor.clone() for name, tensor in ours.tensors().items()}
    tensors["ranking.vectors"][:, Options().ranking_size :] *= RECIPE_GAIN / DENSE_GAIN
    return ours, Marquee.restore(ours.config(), tensors, ours.vocabularies(), ours.device)


def ndcg_by_user(snapshot: Snapshot, seed: int, kept: Path) -> NDArray[np.float64]:
    """Returns NDCG@10 of every user with a test row under both builds, [2, B]; fitted, or as kept from before."""
    if kept.exists():
        found: NDArray[np.float64] = np.load(kept)
        return found
    parts = divide(snapshot, "leave-last", seed)
    unrated = replace(snapshot.data, scale=None)
    wanted = np.zeros(len(unrated.user_ids), np.int64)
    wanted[parts.held_out.user_rows] = parts.held_out.movie_rows
    both = []
    for model in fit_both(parts, unrated, seed):
        answers = evaluate(model, unrated, parts.train, parts.held_out, protocol="leave-last")
        hits = answers.lists == wanted[answers.users, None]  # [B, k]
        both.append([ndcg_at_k(row[None], np.ones(1, np.int64)) for row in hits])
    kept.parent.mkdir(parents=True, exist_ok=True)
    np.save(kept, np.array(both))
    return np.array(both)


def compare(snapshot: Snapshot, name: str, seeds: list[int]) -> dict[str, Any]:
    """Returns the figures of one data set."""
    ours, recipe = np.stack([ndcg_by_user(snapshot, seed, KEPT / f"{name}-{seed}.npy") for seed in seeds], axis=1)
    differences = (ours - recipe).mean(axis=0)  # [B]
    draws = np.random.default_rng(0).integers(0, len(differences), (10_000, len(differences)))
    low, high = np.quantile(differences[draws].mean(axis=1), [0.025, 0.975])
    return {
        "data": name,
        "users": len(differences),
        "seeds": seeds,
        "marquee": [round(float(each), 5) for each in ours.mean(axis=1)],
        "recipe": [round(float(each), 5) for each in recipe.mean(axis=1)],
        "mean_marquee": round(float(ours.mean()), 5),
        "mean_recipe": round(float(recipe.mean()), 5),
        "difference": round(float(differences.mean()), 5),
        "interval_95": [round(float(low), 5), round(float(high), 5)],
    }


def main() -> None:
    """Fits, compares, records and prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", nargs="+", choices=DATA, default=DATA)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2, 3, 4])
    arguments = parser.parse_args()
    if "MARQUEE_DATA" not in os.environ:
        sys.exit("MARQUEE_DATA must name a folder that holds ml-100k and ml-latest-small")
    folder = Path(os.environ["MARQUEE_DATA"])
    rows = [compare(take_snapshot(str(folder / name), ReadOptions()), name, arguments.seeds) for name in arguments.data]
    console = Console()
    console.print_json(data=rows)
    console.print(f"Written to {record('recipe_ranking_pairs', {'rows': rows})}")


if __name__ == "__main__":
    main()
