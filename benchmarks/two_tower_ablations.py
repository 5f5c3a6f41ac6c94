"""What is each switch of `two-tower` worth? One row a switch, on validation rows, paired with the defaults.

    python benchmarks/two_tower_ablations.py DATA [--seed 0] [--set FIELD=VALUE ...] [--only NAME ...]

The test rows (temporal:0.1) are put aside first. Of the rest a tenth of the users (strangers) and a twentieth of the
movies (cold) are taken out whole, and of each remaining user the latest tenth is to be guessed. Strangers are asked
about the later half of their rows with the earlier half as history, cold movies about all their rows. Bags are not in
MovieLens: their rows are on synthetic movies whose director decides half of what is thought of them. What is trained
once is kept in a file of the temporary folder, so a run that was interrupted goes on.
"""

import argparse
import json
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.record import record
from trainer.dataset import Dataset, Interactions
from trainer.evaluation import Evaluation, evaluate
from trainer.fits import silent
from trainer.fits.options import parse_options
from trainer.fits.two_tower import Options, fit
from trainer.readers.dataset_reader import read_dataset
from trainer.splits import parse_holdout, split
from two_tower.movie_columns import MovieColumns
from two_tower.serving import RatingScale
from two_tower.user_columns import Profiles

SWITCHES = {
    "ratings in the history": ["history_ratings=false"],
    "attention over the history": ["attention=true"],
    "recency": ["recency=false"],
    "title words": ["titles=false"],
    "movie mean rating": ["movie_means=false"],
    "user rating scale": ["user_scale=false"],
    "user connections: co-watching": ["history_length=1"],
    "cold users: history dropout": ["history_dropout=0", "blank_rate=0"],
    "cold users: ids hidden": ["user_unknown_rate=0"],
    "cold movies: ids hidden": ["movie_unknown_rate=0"],
    "contrastive views": ["contrastive_weight=0.1"],
    "ties hidden": ["hide_ties=true"],
    "sampled softmax": ["negatives=sampled", "sampled_movies=400"],
    "in-batch softmax": ["negatives=in-batch"],
}
"""What is turned off, or on where it is off by default, in a row."""

MEASURES = ("rmse", "ndcg", "stranger_rmse", "stranger_ndcg", "cold_rmse")


@dataclass(frozen=True, slots=True)
class Parts:
    """Rows to learn from, and the three kinds that are asked about with the rows that stand in histories then."""

    train: Interactions
    asked: dict[str, tuple[Interactions, Interactions]]


def divide(data: Dataset, seed: int) -> Parts:
    """Puts the test rows aside and divides the rest."""
    rng = np.random.default_rng(seed)
    rows = split(data, parse_holdout("temporal:0.1"), seed).train
    stranger = np.isin(rows.user_rows, rng.choice(len(data.user_ids), len(data.user_ids) // 10, replace=False))
    cold = np.isin(rows.movie_rows, rng.choice(len(data.movies), len(data.movies) // 20, replace=False))
    known = replace(data, interactions=rows.take(~stranger & ~cold))
    warm = split(known, parse_holdout("temporal:0.1"), seed)
    unknown = replace(data, interactions=rows.take(stranger & ~cold))
    halves = split(unknown, parse_holdout("temporal:0.5"), seed)
    return Parts(
        warm.train,
        {
            "": (warm.train, warm.test),
            "stranger_": (halves.train, halves.test),
            "cold_": (warm.train, rows.take(~stranger & cold)),
        },
    )


def measure(data: Dataset, parts: Parts, options: list[str], seed: int) -> dict[str, list[float]]:
    """Trains and returns squared errors by row and NDCG@10 by user, by measure; and the seconds it took."""
    begun = time.process_time()
    made = fit(replace(data, interactions=parts.train), parse_options(Options, options), seed=seed, progress=silent)
    found: dict[str, list[float]] = {"processor_s": [time.process_time() - begun]}
    for kind, (histories, asked) in parts.asked.items():
        evaluation = evaluate(made, data, histories, asked, protocol="")
        found[f"{kind}rmse"] = np.square(evaluation.predicted - asked.ratings).tolist()
        if kind != "cold_":
            found[f"{kind}ndcg"] = ndcg_by_user(evaluation).tolist()
    return found


def ndcg_by_user(evaluation: Evaluation) -> NDArray[np.float64]:
    """Returns each user's NDCG@10, as `trainer.metrics.ndcg_at_k` has it."""
    asked = evaluation.held_out
    discounts = 1 / np.log2(np.arange(2, 12))
    found = []
    for user, listed in zip(evaluation.users, evaluation.lists[:, :10], strict=True):
        relevant = asked.movie_rows[asked.user_rows == user]
        found.append(float(np.isin(listed, relevant) @ discounts / discounts[: len(relevant)].sum()))
    return np.array(found)


def mean_of(measure_name: str, values: NDArray[np.float64]) -> float:
    """Returns RMSE or mean NDCG."""
    return float(np.sqrt(values.mean()) if measure_name.endswith("rmse") else values.mean())


def interval(name: str, some: list[float], others: list[float]) -> tuple[float, float]:
    """Returns the difference of two rows of the table and half its 95% interval, by 400 paired bootstraps."""
    rng = np.random.default_rng(0)
    first, second = np.array(some), np.array(others)
    draws = rng.integers(0, len(first), (400, len(first)))
    differences = [mean_of(name, first[draw]) - mean_of(name, second[draw]) for draw in draws]
    return mean_of(name, first) - mean_of(name, second), 1.96 * float(np.std(differences))


def with_bags(seed: int) -> Dataset:
    """Returns synthetic data in which a movie's director, who made few, decides half of what is thought of it."""
    rng = np.random.default_rng(seed)
    num_users, num_movies, num_directors, size = 600, 900, 150, 8
    directors = rng.integers(0, num_directors, num_movies)
    movies = (rng.normal(size=(num_directors, size))[directors] + rng.normal(size=(num_movies, size))) / 2**0.5
    tastes = rng.normal(size=(num_users, size)) / size**0.5
    users = np.repeat(np.arange(num_users), 80)
    liked = tastes @ movies.T + rng.gumbel(size=(num_users, num_movies)) * 0.5
    chosen = np.argsort(-liked, axis=1)[:, :80].ravel()
    order = rng.permutation(len(users))
    users, chosen = users[order], chosen[order]
    stars = np.clip(np.round(3 + (tastes @ movies.T)[users, chosen] + rng.normal(0, 0.7, len(users))), 1, 5)
    bags = {"director": [(f"director {number}",) for number in directors]}
    columns = MovieColumns(
        [f"m{movie}" for movie in range(num_movies)],
        [""] * num_movies,
        np.full(num_movies, np.nan, np.float32),
        [()] * num_movies,
        bags,
    )
    rows = Interactions(
        users.astype(np.int32),
        chosen.astype(np.int32),
        stars.astype(np.float32),
        1_500_000_000_000 + np.arange(len(users), dtype=np.int64) * 60_000,
    )
    ids = [f"u{user}" for user in range(num_users)]
    profiles = Profiles.unknown(num_users)
    return Dataset("made up", ids, profiles, [None] * num_users, columns, rows, RatingScale(1, 5, 1), has_times=True)


def main() -> None:
    """Trains each row and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE")
    parser.add_argument("--only", nargs="*", metavar="NAME")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    real, made_up = read_dataset(asked.data), with_bags(asked.seed)
    rows = [("defaults", real, []), *((name, real, options) for name, options in SWITCHES.items())]
    rows += [("synthetic, defaults", made_up, []), ("actors, directors: bags", made_up, ["bags="])]
    kept = (
        Path(tempfile.gettempdir()) / f"two_tower_ablations-{asked.data.name}-{asked.seed}-{'-'.join(asked.set)}.json"
    )
    found: dict[str, dict[str, list[float]]] = json.loads(kept.read_text()) if kept.exists() else {}
    for name, data, options in rows:
        if name in found or (asked.only and name not in asked.only):
            continue
        stated = {text.partition("=")[0] for text in options}
        others = [text for text in asked.set if text.partition("=")[0] not in stated]
        found[name] = measure(data, divide(data, asked.seed), [*others, *options], asked.seed)
        kept.write_text(json.dumps(found))
        print(name, {key: round(mean_of(key, np.array(found[name][key])), 4) for key in MEASURES}, flush=True)
    print(record("two_tower_ablations", tell(rows, found)))


def tell(
    rows: list[tuple[str, Dataset, list[str]]], found: dict[str, dict[str, list[float]]]
) -> dict[str, dict[str, object]]:
    """Prints the table and returns it."""
    print("| without (options) | " + " | ".join(MEASURES) + " | CPU s |")
    print("|---" * (len(MEASURES) + 2) + "|")
    figures: dict[str, dict[str, object]] = {}
    base = ""
    for name, _, options in rows:
        if name not in found:
            continue
        if not options:
            base = name
        cells, figures[name] = [], {"options": options, "processor_s": round(found[name]["processor_s"][0], 1)}
        for key in MEASURES:
            value = mean_of(key, np.array(found[name][key]))
            difference, half = interval(key, found[name][key], found[base][key]) if options else (0.0, 0.0)
            figures[name][key] = [round(value, 4), round(difference, 4), round(half, 4)]
            cells.append(f"{value:.4f} ({difference:+.4f} ± {half:.4f})" if options else f"{value:.4f}")
        print(f"| {name} ({' '.join(options)}) | {' | '.join(cells)} | {found[name]['processor_s'][0]:.0f} |")
    return figures


if __name__ == "__main__":
    main()
