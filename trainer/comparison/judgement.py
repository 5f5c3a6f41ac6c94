"""Turns answers into figures: one number a metric, and the sums per user that intervals need. Knows no table."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trainer.comparison.bootstrap import UserSums
from trainer.comparison.cell import Answers
from trainer.evaluation import RANKS, relevance
from trainer.metrics import (
    coverage,
    exposures,
    gini,
    mae,
    mrr_at_k,
    mse,
    ndcg_at_k,
    ndcg_of_each,
    recall_at_k,
    recall_of_each,
    reciprocal_rank_of_each,
    rmse,
)

INTERVAL_DEVIATIONS = 1.2816
"""A normal variable lies within so many standard deviations of its mean four times out of five."""
KNOWN_BOUNDS = (0, 1, 5, 20, 50, 200)
"""Where the groups of users by number of known ratings begin."""


@dataclass(frozen=True, slots=True)
class Metric:
    """One column.

    Attributes:
        name: Its name in code and files.
        title: Its name for people.
        better: Which way is better.
        digits: How many are printed.
        is_paired: Whether it is a mean over users or rows, so that a difference has an interval.
    """

    name: str
    title: str
    better: str
    digits: int = 4
    is_paired: bool = True


METRICS = (
    Metric("rmse", "RMSE", "lower"),
    Metric("mse", "MSE", "lower"),
    Metric("mae", "MAE", "lower"),
    Metric("unclipped_rmse", "RMSE, unclipped", "lower"),
    Metric("ndcg", f"NDCG@{RANKS}", "higher"),
    Metric("recall", f"Recall@{RANKS}", "higher"),
    Metric("mrr", f"MRR@{RANKS}", "higher"),
    Metric("coverage", "Coverage", "higher", digits=3, is_paired=False),
    Metric("gini", "Gini", "lower", digits=3, is_paired=False),
)
METRIC_NAMED = {metric.name: metric for metric in METRICS}


def figures(answers: Answers) -> dict[str, float]:
    """Returns every metric by name, NaN where there are no ratings or no lists."""
    rows = answers.held_out
    rated = ~np.isnan(rows.ratings) & ~np.isnan(answers.predicted)
    actual, predicted = rows.ratings[rated], answers.predicted[rated]
    found = {
        "rmse": rmse(predicted, actual),
        "mse": mse(predicted, actual),
        "mae": mae(predicted, actual),
        "unclipped_rmse": rmse(answers.unclipped[rated], actual),
    }
    if not can_rank(answers):
        return found | dict.fromkeys(("ndcg", "recall", "mrr", "coverage", "gini"), float("nan"))
    lists = answers.lists[:, :RANKS]
    hits, num_relevant = relevance(rows, answers.users, lists)
    counts = exposures(lists, answers.num_movies)
    return found | {
        "ndcg": ndcg_at_k(hits, num_relevant),
        "recall": recall_at_k(hits, num_relevant),
        "mrr": mrr_at_k(hits),
        "coverage": coverage(counts),
        "gini": gini(counts),
    }


def can_rank(answers: Answers) -> bool:
    """Tells whether there are lists."""
    return bool((answers.lists >= 0).any())


def can_rate(answers: Answers) -> bool:
    """Tells whether there are ratings."""
    return not bool(np.isnan(answers.predicted).all())


def user_sums(answers: Answers, metric: str) -> UserSums | None:
    """Returns what a metric is the mean of, by user; None where the contender has no such answers."""
    if metric in ("rmse", "mse", "mae", "unclipped_rmse"):
        return _error_sums(answers, metric) if can_rate(answers) else None
    if not can_rank(answers):
        return None
    hits, num_relevant = relevance(answers.held_out, answers.users, answers.lists[:, :RANKS])
    of_each: dict[str, Callable[[], NDArray[np.float64]]] = {
        "ndcg": lambda: ndcg_of_each(hits, num_relevant),
        "recall": lambda: recall_of_each(hits, num_relevant),
        "mrr": lambda: reciprocal_rank_of_each(hits),
    }
    values = of_each[metric]()
    return UserSums(answers.users, values, np.ones(len(values)))


def _error_sums(answers: Answers, metric: str) -> UserSums:
    rows = answers.held_out
    predicted = answers.unclipped if metric == "unclipped_rmse" else answers.predicted
    rated = ~np.isnan(rows.ratings) & ~np.isnan(predicted)
    errors = predicted[rated].astype(np.float64) - rows.ratings[rated]
    losses = np.abs(errors) if metric == "mae" else np.square(errors)
    users, places = np.unique(rows.user_rows[rated], return_inverse=True)
    return UserSums(
        users, np.bincount(places, losses).astype(float), np.bincount(places).astype(float), metric.endswith("rmse")
    )


@dataclass(frozen=True, slots=True)
class Calibration:
    """How often the truth lay within the stated 80% interval.

    Attributes:
        low: The group is of users with at least so many known ratings; -1 for everybody.
        num_rows: Rows in the group.
        covered: Share of them within the interval.
    """

    low: int
    num_rows: int
    covered: float


def calibration(answers: Answers) -> list[Calibration]:
    """Returns the coverage of 80% intervals, overall and then by number of known ratings; [] if none is stated."""
    rows = answers.held_out
    told = ~np.isnan(rows.ratings) & ~np.isnan(answers.deviations)
    if not told.any():
        return []
    errors = np.abs(answers.predicted[told] - rows.ratings[told])
    within = errors <= INTERVAL_DEVIATIONS * answers.deviations[told]
    group = np.searchsorted(KNOWN_BOUNDS, answers.num_known[told], side="right") - 1
    found = [Calibration(-1, int(told.sum()), float(within.mean()))]
    for number, low in enumerate(KNOWN_BOUNDS):
        members = within[group == number]
        if len(members):
            found.append(Calibration(low, len(members), float(members.mean())))
    return found
