"""Finds the rating scale of a data set from the values that occur in it. Knows no file."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from two_tower.serving import RatingScale

RANGES = (
    (0.0, 1.0),
    (1.0, 5.0),
    (0.5, 5.0),
    (0.0, 5.0),
    (1.0, 10.0),
    (0.5, 10.0),
    (0.0, 10.0),
    (1.0, 100.0),
    (0.0, 100.0),
)
"""Ends of the scales in common use, narrow ones first."""
STEPS = (1.0, 0.5, 0.25, 0.2, 0.1, 0.05, 0.01)
MAX_OUTSIDE = 0.01
"""Share of the ratings that may lie off a scale that is still taken for the data's: such rows are broken."""
MAX_OFF_STEP = 0.001
"""The same for values within the ends but between two steps."""
TOLERANCE = 1e-4
"""Distance within which a value counts as on a step: ratings arrive as float32."""


def on_scale(values: NDArray[np.float64], scale: RatingScale) -> NDArray[np.bool_]:
    """Tells which values a user could have given. bool [len(values)]."""
    steps = (values - scale.low) / scale.step
    inside = (values >= scale.low - TOLERANCE) & (values <= scale.high + TOLERANCE)
    with np.errstate(invalid="ignore"):
        return inside & (np.abs(steps - np.round(steps)) * scale.step < TOLERANCE)


def detect_scale(
    values: NDArray[np.float64], counts: NDArray[np.int64], choices: Sequence[RatingScale] = ()
) -> RatingScale | None:
    """Finds the scale of ratings.

    With `choices` the first that holds every value, else the one that holds the most. Without, the narrowest range in
    common use that holds 99% of the ratings, with the coarsest step that holds 99.9% of what is inside; where none
    does, the smallest to the largest value.

    Args:
        values: The different ratings, finite. [V]
        counts: How often each occurs. [V]
        choices: The only scales possible, narrow ones first; any if empty.

    Returns:
        The scale, None if there are not two different ratings and no choices: then ratings say nothing.
    """
    total = counts.sum()
    if choices:
        return max(choices, key=lambda scale: int(counts[on_scale(values, scale)].sum()))
    if len(values) < 2:
        return None
    for low, high in RANGES:
        inside = (values >= low) & (values <= high)
        if counts[inside].sum() >= (1 - MAX_OUTSIDE) * total:
            return RatingScale(low, high, _step(low, high, values[inside], counts[inside]))
    low, high = float(values.min()), float(values.max())
    return RatingScale(low, high, _step(low, high, values, counts))


def _step(low: float, high: float, values: NDArray[np.float64], counts: NDArray[np.int64]) -> float:
    for step in STEPS:
        fits = counts[on_scale(values, RatingScale(low, high, step))].sum() >= (1 - MAX_OFF_STEP) * counts.sum()
        if fits and on_scale(np.asarray([high]), RatingScale(low, high, step))[0]:
            return step
    # Ratings on no grid: a step this fine rounds nothing away and calls nothing broken.
    return TOLERANCE
