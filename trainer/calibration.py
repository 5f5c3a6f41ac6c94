"""Measures how far ratings scatter about predictions, by how many ratings of a user were known. Knows no model by name.

A model cannot tell from the rows that it learnt from. So a share of the training rows is held out, a clone is fitted to
the rest with the same options, and its errors on the share make the table; the model itself then learns from all rows.
Few users of a data set have few ratings, so that the clone is asked about strangers, too, of whom it is shown a few.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainer.cold_start import evaluate_strangers
from trainer.dataset import Dataset, Interactions
from trainer.evaluation import Evaluation, evaluate
from trainer.fits import FitFunction, Progress
from two_tower.rating_spread import RatingSpread
from two_tower.serving import ServedModel

HELD_OUT_SHARE = 0.05
ENOUGH_HELD_OUT = 400
"""Small data gives more than the share, up to a fifth of its rows."""
MAX_HELD_OUT = 20_000
"""Rows: the 80% quantile of so many errors is known to 1% (order statistics, Serfling 1980, section 2.3.3)."""

MIN_ERRORS = 200
"""A row of the table is made of so many errors at least: then its intervals hold 80% ± 3% (binomial)."""

COUNTS = (0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
"""Lower edges of the table, if each has enough errors: errors shrink about evenly with each doubling."""

STRANGERS_KNOW = (0, 1, 2, 4, 8, 16)
MAX_STRANGERS = 1_000

NORMAL_80 = 1.2816
"""Deviations on either side of its mean that hold 80% of a normal distribution; what serving turns a deviation into."""


def tells_deviations(model_class: type[ServedModel[Any, Any]]) -> bool:
    """Says whether models of this class know how sure they are and need no table."""
    return model_class.rating_deviations is not ServedModel.rating_deviations


def calibrate(
    fit: FitFunction, data: Dataset, train: Interactions, options: Any, *, seed: int, progress: Progress
) -> RatingSpread | None:
    """Fits a clone to most of the training rows and makes the table of its errors on the others.

    Args:
        fit: Makes the clone.
        data: Users and movies.
        train: The training rows.
        options: Of the fit.
        seed: Of the fit and of the draw.
        progress: Told what the clone's fit tells.

    Returns:
        The table, None if there are too few ratings to measure anything.
    """
    rng = np.random.default_rng([seed, 0x5CA77E2])
    num_held_out = min(max(int(HELD_OUT_SHARE * len(train)), ENOUGH_HELD_OUT), len(train) // 5, MAX_HELD_OUT)
    mask = np.zeros(len(train), np.bool_)
    mask[rng.permutation(len(train))[:num_held_out]] = True
    held_out, rest = train.take(mask & ~np.isnan(train.ratings)), train.take(~mask)
    if len(held_out) < MIN_ERRORS or np.isnan(rest.ratings).all():
        return None
    clone = fit(replace(data, interactions=rest), options, seed=seed, progress=progress)
    acquainted = evaluate(clone, data, rest, held_out, protocol="calibration")
    levels = STRANGERS_KNOW if clone.uses_history else STRANGERS_KNOW[:1]
    strangers = [
        told
        for known in levels
        if (told := evaluate_strangers(clone, data, rest, held_out, known, max_users=MAX_STRANGERS, rng=rng))
    ]
    return spread_of([acquainted], strangers)


def spread_of(acquainted: Sequence[Evaluation], strangers: Sequence[Evaluation] = ()) -> RatingSpread | None:
    """Returns the table of the errors, None if there are fewer than `MIN_ERRORS`.

    Args:
        acquainted: Of users as they are.
        strangers: Of users whose id was hidden: looked at for counts that too few of the others have.
    """
    errors, num_known = _errors_of(acquainted)
    strange_errors, strange_known = _errors_of(strangers)
    if len(errors) + len(strange_errors) < MIN_ERRORS:
        return None
    counts: list[int] = []
    groups: list[NDArray[np.float32]] = []
    ends = (*COUNTS[1:], np.inf)
    for low, high in zip(COUNTS, ends, strict=True):
        group = errors[(num_known >= low) & (num_known < high)]
        if len(group) < MIN_ERRORS:
            group = np.concatenate([group, strange_errors[(strange_known >= low) & (strange_known < high)]])
        if groups and (len(group) < MIN_ERRORS or len(groups[-1]) < MIN_ERRORS):
            groups[-1] = np.concatenate([groups[-1], group])
        else:
            counts.append(low)
            groups.append(group)
    deviations = (max(float(np.quantile(group, 0.8)) / NORMAL_80, 1e-3) for group in groups)
    return RatingSpread(tuple(counts), tuple(deviations))


def _errors_of(evaluations: Sequence[Evaluation]) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Returns the size of each error, and the known ratings of its user."""
    if not evaluations:
        return np.zeros(0, np.float32), np.zeros(0, np.int64)
    errors = np.concatenate([np.abs(each.predicted - each.held_out.ratings) for each in evaluations])
    num_known = np.concatenate([each.num_known for each in evaluations])
    told = ~np.isnan(errors)
    return errors[told], num_known[told]
