"""Does `marquee` rate better than the build that its recipe describes, on identical rows?

    python benchmarks/recipe_rating_pairs.py [--rows ml-100k:u1.test ml-latest-small:random:0.1] [--seeds 0 1 2 3 4]

The rating head alone, test rows; the seed draws the split, where it is random, and all that is random in the fits. The
recipe's build is one tower and one factorisation machine with its constants, blended half and half, with the vectors
that were trained. The interval draws users (`trainer.comparison.bootstrap`). A minute of one core a fit on the small
sets, two to three on ML-1M; what was fitted is kept in .run, so that it can be stopped and started. Needs MARQUEE_DATA.
"""

import argparse
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from benchmarks.record import record
from trainer.comparison.bootstrap import UserSums, paired_interval
from trainer.evaluation import evaluate
from trainer.fits import silent
from trainer.fits.marquee import Options, fit
from trainer.readers.read_options import ReadOptions
from trainer.snapshot import Snapshot, divide, take_snapshot

KEPT = Path(".run/recipe_rating_pairs")

# Nothing is ranked here, so the retrieval head may be as small as it can be.
_UNRANKED = Options(
    ranking_epochs=0, ranking_size=1, closed_size=1, closed_movies=10, untimed_size=1, untimed_movies=10
)

_SMALL = replace(_UNRANKED, towers=1, machine_rank=10, machine_size=32, hidden_size=400)
RECIPE = {
    "ml-100k": _SMALL,
    "ml-latest-small": _SMALL,
    "ml-1m-untimed": replace(_UNRANKED, towers=1, machine_rank=24, machine_size=64, hidden_size=1000),
}
"""The recipe's other constants are the defaults."""


def squares_by_user(snapshot: Snapshot, holdout: str, options: Options, seed: int, kept: Path) -> UserSums:
    """Returns the squared errors of every user with a test row, fitted or as kept from before."""
    if not kept.exists():
        parts = divide(snapshot, holdout, seed)
        model = fit(replace(snapshot.data, interactions=parts.train), options, seed=seed, progress=silent)
        evaluation = evaluate(model, snapshot.data, parts.train, parts.held_out, protocol=holdout)
        kept.parent.mkdir(parents=True, exist_ok=True)
        squares = (evaluation.predicted.astype(np.float64) - parts.held_out.ratings) ** 2
        np.save(kept, np.stack([parts.held_out.user_rows, squares]))
    user_rows, squares = np.load(kept)
    users, places = np.unique(user_rows.astype(np.int64), return_inverse=True)
    sums, counts = np.bincount(places, squares).astype(np.float64), np.bincount(places).astype(np.float64)
    return UserSums(users, sums, counts, is_root=True)


def compare(snapshot: Snapshot, name: str, holdout: str, seeds: list[int]) -> dict[str, Any]:
    """Returns the figures of one data set and holdout."""
    ours, recipe = (
        [
            squares_by_user(
                snapshot, holdout, build, seed, KEPT / f"{name}-{holdout.replace(':', '-')}-{kind}-{seed}.npy"
            )
            for seed in seeds
        ]
        for kind, build in (("marquee", _UNRANKED), ("recipe", RECIPE[name]))
    )
    found = paired_interval(ours, recipe)
    by_seed = [
        [round(float(np.sqrt(one.totals.sum() / one.weights.sum())), 5) for one in side] for side in (ours, recipe)
    ]
    return {
        "data": name,
        "holdout": holdout,
        "seeds": seeds,
        "marquee": by_seed[0],
        "recipe": by_seed[1],
        "mean_marquee": round(float(np.mean(by_seed[0])), 5),
        "mean_recipe": round(float(np.mean(by_seed[1])), 5),
        "difference": round(found.difference, 5),
        "interval_95": [round(found.low, 5), round(found.high, 5)],
        "better": found.high < 0,
    }


def main() -> None:
    """Fits, compares, records and prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", nargs="+", default=["ml-100k:u1.test", "ml-latest-small:random:0.1"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2, 3, 4])
    parser.add_argument("--result", default="recipe_rating_pairs", help="name of the file of results")
    arguments = parser.parse_args()
    if "MARQUEE_DATA" not in os.environ:
        sys.exit("MARQUEE_DATA must name a folder that holds ml-100k, ml-latest-small and ml-1m-untimed")
    folder = Path(os.environ["MARQUEE_DATA"])
    rows = []
    for text in arguments.rows:
        name, _, holdout = text.partition(":")
        rows.append(compare(take_snapshot(str(folder / name), ReadOptions()), name, holdout, arguments.seeds))
    console = Console()
    console.print_json(data=rows)
    console.print(f"Written to {record(arguments.result, {'rows': rows})}")


if __name__ == "__main__":
    main()
