"""What does variety cost, and how much of a list can be explained? On real data, through the code that serves.

Fits models (of marquee the ranking head in full and the rating head in brief, which has no say here), or opens the
checkpoints that are named, made from the same data with --holdout leave-last. Makes each user's list of ten at several
diversities, from the rows that were trained on: NDCG@10 on the held-out movies, and how alike the movies of a list are
(mean cosine of all pairs, as SimilarMovies has it). Then explains the plain lists by up to five entries. Some minutes
on two cores; needs MARQUEE_DATA.
"""

import os
import statistics
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console

from benchmarks.record import record
from trainer.evaluation import user_columns
from trainer.fits import fit_function, silent
from trainer.fits.options import parse_options
from trainer.histories import HistoryLayout
from trainer.metrics import coverage, exposures, ndcg_at_k
from trainer.readers.read_options import ReadOptions
from trainer.snapshot import Parts, Snapshot, divide, divide_again, take_snapshot
from two_tower.checkpoint import load
from two_tower.diversity import intra_list_similarity
from two_tower.heads import Heads, heads_of
from two_tower.permitted import Permitted
from two_tower.recommending import RankedRow, Wish, recommend
from two_tower.serving import Model
from two_tower.top_k import TorchScorer

DATA = "ml-100k"
HOLDOUT = "leave-last"
OPTIONS = {
    "marquee": ["tower_epochs=1", "hidden_size=16", "machine_iterations=2", "machine_rank=4"],
    "two-tower-history": [],
}
RUNS = [("marquee", 0), ("marquee", 1), ("marquee", 2), ("two-tower-history", 0)]
DIVERSITIES = (0.0, 0.1, 0.3, 0.5, 0.7, 1.0)
K = 10
REASONS = 5
USERS_AT_ONCE = 128


def lists_of(model: Model, heads: Heads, snapshot: Snapshot, parts: Parts, wish: Wish) -> list[RankedRow]:
    """Returns a list for each user with held-out rows, as the services would make it."""
    data = snapshot.data
    layout = HistoryLayout(parts.train, len(data.user_ids))
    users = np.unique(parts.held_out.user_rows)
    mask = np.ones((1, len(data.movies)), np.bool_)
    made: list[RankedRow] = []
    for start in range(0, len(users), USERS_AT_ONCE):
        some = users[start : start + USERS_AT_ONCE]
        columns = user_columns(data, layout, some)
        rows, seen = layout.seen(some)
        permitted = Permitted(mask, np.zeros(len(some), np.int64), rows, seen.astype(np.int64))
        embedded = heads.embed(columns)
        everybody = np.arange(len(some), dtype=np.int64)
        made += recommend(heads, TorchScorer(), columns, embedded, everybody, [wish] * len(some), permitted, mask[0])
    return made


def judge(heads: Heads, parts: Parts, lists: list[RankedRow]) -> dict[str, float]:
    """Returns how good and how varied lists are."""
    users = np.unique(parts.held_out.user_rows)
    wanted: dict[int, set[int]] = {int(user): set() for user in users}
    for user, movie in zip(parts.held_out.user_rows.tolist(), parts.held_out.movie_rows.tolist(), strict=True):
        wanted[user].add(movie)
    numbers = np.stack([row.ranked.numbers for row in lists])  # [B, K]
    relevant = [wanted[int(user)] for user in users]
    hits = np.array(
        [[number in theirs for number in row] for row, theirs in zip(numbers.tolist(), relevant, strict=True)]
    )
    vectors = heads.cosines.vectors.cpu().numpy()
    return {
        "ndcg_at_10": ndcg_at_k(hits, np.array([len(theirs) for theirs in relevant])),
        "intra_list_similarity": statistics.mean(intra_list_similarity(vectors[row]) for row in numbers),
        "coverage": coverage(exposures(numbers, len(vectors))),
    }


def explained(lists: list[RankedRow]) -> dict[str, float]:
    """Returns what share of the leads the named entries explain, and how many are named."""
    told = [each for row in lists for each in row.explanations or ()]
    shares = np.array([1 - each.unexplained for each in told])
    return {
        "mean_share_explained": float(shares.mean()),
        "median_share_explained": float(np.median(shares)),
        "mean_reasons": statistics.mean(len(each.numbers) for each in told),
        "mean_share_of_first": statistics.mean(float(each.shares[0]) if len(each.shares) else 0.0 for each in told),
    }


def fit(snapshot: Snapshot, name: str, seed: int) -> tuple[Model, Parts]:
    """Fits a model to the rows that are not held out."""
    parts = divide(snapshot, HOLDOUT, seed)
    made = fit_function(name)
    learnt_from = replace(snapshot.data, interactions=parts.train)
    options = parse_options(made.options_class, OPTIONS[name])
    return made.fit(learnt_from, options, seed=seed, progress=silent), parts


def opened(snapshot: Snapshot, folder: Path) -> tuple[Model, Parts]:
    """Loads a checkpoint and finds its rows again."""
    loaded = load(folder)
    return loaded.model, divide_again(snapshot, loaded.manifest)


def measure(console: Console, snapshot: Snapshot, model: Model, parts: Parts) -> dict[str, Any]:
    """Returns the figures of one model."""
    name, seed = model.name, parts.trained_rows.seed
    with torch.inference_mode():
        heads = heads_of(model, model.embed_movies(snapshot.data.movies))
        by_diversity = {}
        for diversity in DIVERSITIES:
            began = time.perf_counter()
            lists = lists_of(model, heads, snapshot, parts, Wish(K, diversity))
            ms = (time.perf_counter() - began) * 1000 / len(lists)
            figures = judge(heads, parts, lists)
            by_diversity[str(diversity)] = {
                **{key: round(value, 5) for key, value in figures.items()},
                "ms": round(ms, 3),
            }
            console.print(name, seed, diversity, by_diversity[str(diversity)])
        began = time.perf_counter()
        lists = lists_of(model, heads, snapshot, parts, Wish(K, explain=REASONS))
        ms = (time.perf_counter() - began) * 1000 / len(lists)
        why = {key: round(value, 4) for key, value in {**explained(lists), "ms": ms}.items()}
        console.print(name, seed, why)
    return {"model": name, "seed": seed, "diversity": by_diversity, "explanations": why}


def main() -> int:
    """Measures, prints and records."""
    if "MARQUEE_DATA" not in os.environ:
        sys.exit(f"MARQUEE_DATA must name a folder that holds {DATA}")
    console = Console()
    snapshot = take_snapshot(str(Path(os.environ["MARQUEE_DATA"]) / DATA), ReadOptions())
    folders = [Path(argument) for argument in sys.argv[1:]]
    models = (opened(snapshot, folder) for folder in folders) if folders else (fit(snapshot, *run) for run in RUNS)
    rows = [measure(console, snapshot, *model) for model in models]
    console.print(f"Written to {record('diversity', {'data': DATA, 'holdout': HOLDOUT, 'k': K, 'rows': rows})}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
