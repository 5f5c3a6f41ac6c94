"""The rating scale follows from the values that occur, and stray values do not widen it."""

import numpy as np
import pytest

from trainer.readers.rating_scale import detect_scale
from two_tower.serving import RatingScale


@pytest.mark.parametrize(
    ("values", "counts", "scale"),
    [
        ([1, 2, 3, 4, 5], [10] * 5, (1, 5, 1)),
        ([3, 4, 5], [10] * 3, (1, 5, 1)),
        ([0.5, 1, 3.5, 5], [10] * 4, (0.5, 5, 0.5)),
        ([0, 1], [10, 10], (0, 1, 1)),
        ([1, 5, 7, 10], [10] * 4, (1, 10, 1)),
        ([0, 5, 7, 10], [10] * 4, (0, 10, 1)),
        ([12, 55, 99], [10] * 3, (1, 100, 1)),
        ([1, 2, 3, 4, 5, 47], [1000] * 5 + [3], (1, 5, 1)),
        ([1, 2, 3, 4, 5, 3.3], [1000] * 5 + [1], (1, 5, 1)),
        ([-3, 250], [10, 10], (-3, 250, 1)),
    ],
)
def test_a_scale_is_found(values: list[float], counts: list[int], scale: tuple[float, float, float]) -> None:
    """The narrowest scale in common use that holds nearly all ratings is taken."""
    assert detect_scale(np.asarray(values, np.float64), np.asarray(counts)) == RatingScale(*scale)


def test_ratings_on_no_grid_are_all_on_the_scale() -> None:
    """Continuous ratings get a step so fine that none is called broken."""
    values = np.random.default_rng(0).uniform(-1, 1, 1000)

    scale = detect_scale(values, np.ones(1000, np.int64))

    assert scale is not None
    assert scale.step <= 1e-4


def test_one_value_is_no_scale() -> None:
    """A single value throughout says nothing."""
    assert detect_scale(np.asarray([1.0]), np.asarray([9])) is None
