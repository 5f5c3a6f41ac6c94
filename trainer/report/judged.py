"""Says where a model errs: by prediction, by what was known of the user, by the movie's popularity. Draws nothing."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from trainer.calibration import NORMAL_80
from trainer.cold_start import evaluate_strangers
from trainer.dataset import Dataset, Interactions
from trainer.evaluation import Evaluation
from trainer.report.findings import Band, Interval, Reliability, Stranger
from two_tower.rating_spread import RatingSpread
from two_tower.serving import Model

KNOWN_EDGES = (0, 1, 5, 10, 20, 50, 100, 200, 500, 1000)
POPULARITY_EDGES = (0, 1, 3, 10, 30, 100, 300, 1000, 3000, 10_000)
STRANGERS_KNOW = (0, 1, 2, 5, 10, 20, 50)

_MAX_STRANGERS = 400
_RELIABILITY_BINS = 20
_NOMINAL = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)


def deviations_of(evaluation: Evaluation, spread: RatingSpread | None) -> NDArray[np.float32]:
    """Returns the deviation of each held-out rating, the table's where the model tells none, else NaN. float32 [n]."""
    told = evaluation.deviations
    return told if spread is None else np.where(np.isnan(told), spread.deviations_of(evaluation.num_known), told)


def reliability_of(evaluation: Evaluation) -> tuple[Reliability, ...]:
    """Puts held-out ratings into groups of equal size by prediction, and returns both means of each."""
    rated = ~np.isnan(evaluation.predicted) & ~np.isnan(evaluation.held_out.ratings)
    predicted, actual = evaluation.predicted[rated], evaluation.held_out.ratings[rated]
    ascending = np.argsort(predicted, kind="stable")
    groups = np.array_split(ascending, min(_RELIABILITY_BINS, max(1, len(ascending))))
    return tuple(
        Reliability(float(predicted[group].mean()), float(actual[group].mean()), len(group))
        for group in groups
        if len(group)
    )


def intervals_of(evaluation: Evaluation, deviations: NDArray[np.float32]) -> tuple[Interval, ...]:
    """Returns how many held-out ratings lie within intervals of several widths about the unclipped prediction."""
    away = np.abs(evaluation.unclipped - evaluation.held_out.ratings) / deviations
    away = away[~np.isnan(away)]
    if not len(away):
        return ()
    # Of a normal distribution: erf(z / √2) of it lies within z deviations.
    within = np.asarray([math.erf(each / math.sqrt(2)) for each in away])
    return tuple(Interval(nominal, float(np.mean(within <= nominal))) for nominal in _NOMINAL)


def bands_of(
    evaluation: Evaluation,
    deviations: NDArray[np.float32],
    counts: NDArray[np.integer],
    edges: Sequence[int],
) -> tuple[Band, ...]:
    """Returns error and coverage by a count of each held-out row."""
    errors = evaluation.predicted.astype(np.float64) - evaluation.held_out.ratings
    away = np.abs(evaluation.unclipped - evaluation.held_out.ratings) / deviations
    bands = []
    for low, high in zip(edges, [*edges[1:], None], strict=True):
        inside = (counts >= low) & ~np.isnan(errors)
        if high is not None:
            inside &= counts < high
        if not inside.any():
            continue
        told = away[inside][~np.isnan(away[inside])]
        bands.append(
            Band(
                _name(low, high),
                int(inside.sum()),
                float(np.sqrt(np.mean(np.square(errors[inside])))),
                float(errors[inside].mean()),
                float(np.mean(told <= NORMAL_80)) if len(told) else None,
            )
        )
    return tuple(bands)


def strangers_of(
    model: Model, data: Dataset, train: Interactions, held_out: Interactions, seed: int
) -> tuple[Stranger, ...]:
    """Returns how answers get better with what is known of somebody whose id means nothing.

    The same people at every level, or the levels could not be compared: those who reach the highest one that half of
    all users reach.
    """
    counts = np.bincount(train.user_rows, minlength=len(data.user_ids))
    users = np.unique(held_out.user_rows)
    levels = [known for known in STRANGERS_KNOW if known <= np.median(counts[users])]
    enough = held_out.take(counts[held_out.user_rows] >= levels[-1])
    found = []
    for known in levels:
        rng = np.random.default_rng(seed)
        told = evaluate_strangers(model, data, train, enough, known, max_users=_MAX_STRANGERS, rng=rng)
        if told is not None:
            found.append(Stranger(known, len(told.users), told.metrics.rmse, told.metrics.ndcg_at_10))
    return tuple(found)


def _name(low: int, high: int | None) -> str:
    if high is None:
        return f"{low:,} and more"
    return f"{low:,}" if high == low + 1 else f"{low:,} to {high - 1:,}"
