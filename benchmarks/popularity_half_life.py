"""How fast should what people watched be forgotten, when somebody is recommended what is popular?

At several moments of a data set with times, movies are ranked by what was watched until then, each view worth half as
much after every half-life. Asked is about the users whose first view comes soon after: nothing is known of them, as of
whom POPULAR is answered. NDCG@10 over the full catalogue, mean over all of them; the interval is of the difference to
counting alone, by bootstrap over users.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from benchmarks.record import record
from trainer.comparison.bootstrap import UserSums, paired_interval
from trainer.dataset import Dataset, Interactions
from trainer.metrics import ndcg_of_each
from trainer.popularity import decayed_counts
from trainer.readers import read_dataset

HALF_LIVES_DAYS = (3, 7, 14, 30, 60, 90, 180, 365, 730, 1460, float("inf"))
CUTS = (0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
WINDOW = 0.1
RANKS = 10


def newcomers(rows: Interactions, begin_ms: int, end_ms: int) -> Interactions:
    """Returns the rows within a time of users who have none before it."""
    before = np.unique(rows.user_rows[rows.event_times_ms <= begin_ms])
    inside = (rows.event_times_ms > begin_ms) & (rows.event_times_ms <= end_ms)
    return rows.take(inside & ~np.isin(rows.user_rows, before))


def gains(rows: Interactions, best: NDArray[np.int64]) -> NDArray[np.float64]:
    """Returns the NDCG@10 of each user, who are all given the same list."""
    users, places = np.unique(rows.user_rows, return_inverse=True)
    hits = np.zeros((len(users), RANKS), np.bool_)
    for rank, movie in enumerate(best.tolist()):
        hits[places[rows.movie_rows == movie], rank] = True
    return np.asarray(ndcg_of_each(hits, np.bincount(places)), np.float64)


def measure(data: Dataset) -> dict[str, dict[str, float]]:
    """Returns, by half-life, the NDCG@10 and its difference to counting alone with an interval."""
    rows = data.interactions
    times = np.sort(rows.event_times_ms)
    found: dict[float, list[NDArray[np.float64]]] = {half_life: [] for half_life in HALF_LIVES_DAYS}
    for cut in CUTS:
        begin_ms = int(times[int(cut * len(times))])
        end_ms = int(times[min(len(times) - 1, int((cut + WINDOW) * len(times)))])
        asked, known = newcomers(rows, begin_ms, end_ms), rows.take(rows.event_times_ms <= begin_ms)
        if not len(asked):
            continue
        for half_life, each in found.items():
            scores = decayed_counts(known, len(data.movies), half_life, until_ms=begin_ms)
            each.append(gains(asked, np.argsort(-scores, kind="stable")[:RANKS]))
    joined = {half_life: np.concatenate(each) for half_life, each in found.items()}
    counting = joined[float("inf")]
    users = np.arange(len(counting))
    figures = {}
    ones = np.ones(len(counting))
    for half_life, of_users in joined.items():
        interval = paired_interval([UserSums(users, of_users, ones)], [UserSums(users, counting, ones)])
        figures[f"{half_life:g}"] = {
            "ndcg_at_10": round(float(of_users.mean()), 4),
            "difference": round(interval.difference, 4),
            "low": round(interval.low, 4),
            "high": round(interval.high, 4),
            "users": len(of_users),
        }
    return figures


def main(arguments: Sequence[str]) -> int:
    """Measures each data set, prints a table, records the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", nargs="+", type=Path, help="folders of data with times")
    options = parser.parse_args(arguments)
    figures = {}
    for path in options.data:
        figures[path.name] = measure(read_dataset(path))
        table = Table(title=f"{path.name}: what is popular, for users of whom nothing is known")
        for heading in ("half-life, days", "NDCG@10", "less counting alone", "95% interval", "users"):
            table.add_column(heading, justify="right")
        for half_life, each in figures[path.name].items():
            interval = f"{each['low']:+.4f} to {each['high']:+.4f}"
            cells = (f"{each['ndcg_at_10']:.4f}", f"{each['difference']:+.4f}", interval, f"{each['users']:.0f}")
            table.add_row(half_life, *cells)
        Console().print(table)
    record("popularity_half_life", figures)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
