"""Figures of answers that one can work out by hand."""

import math

import numpy as np
import pytest

from trainer.comparison.cell import Answers
from trainer.comparison.judgement import calibration, figures, user_sums
from trainer.dataset import Interactions


def _answers(**changes: object) -> Answers:
    """Two users, three rows: errors of 1, 0 and 2 stars; the first user has one hit, at rank 2, the other none."""
    held_out = Interactions(
        np.array([0, 0, 4], np.int32), np.array([1, 2, 3], np.int32), np.array([3, 4, 3], np.float32), np.zeros(3, int)
    )
    lists = np.full((2, 10), -1)
    lists[0, :2], lists[1, :2] = [5, 1], [5, 0]
    values: dict[str, object] = {
        "held_out": held_out,
        "predicted": np.array([4, 4, 5], np.float32),
        "unclipped": np.array([4, 4, 7], np.float32),
        "deviations": np.array([1, 0.1, 1], np.float32),
        "num_known": np.array([0, 0, 30]),
        "users": np.array([0, 4], np.int32),
        "lists": lists,
        "num_movies": 6,
    }
    return Answers(**(values | changes))  # type: ignore[arg-type]


def test_every_figure_of_a_small_case() -> None:
    """Squared errors 1, 0 and 4, unclipped 1, 0 and 16; one hit of two at rank 2; three of six movies are listed."""
    found = figures(_answers())

    assert found["mse"] == pytest.approx(5 / 3)
    assert found["rmse"] == pytest.approx(math.sqrt(5 / 3))
    assert found["mae"] == pytest.approx(1)
    assert found["unclipped_rmse"] == pytest.approx(math.sqrt(17 / 3))
    assert found["ndcg"] == pytest.approx((1 / math.log2(3)) / (1 + 1 / math.log2(3)) / 2)
    assert found["recall"] == pytest.approx(0.25)
    assert found["mrr"] == pytest.approx(0.25)
    assert found["coverage"] == 0.5
    assert found["gini"] == pytest.approx((2 * (4 * 1 + 5 * 1 + 6 * 2) - 7 * 4) / (6 * 4))


@pytest.mark.parametrize("metric", ["rmse", "mse", "mae", "unclipped_rmse", "ndcg", "recall", "mrr"])
def test_sums_of_users_make_the_figure(metric: str) -> None:
    """What is drawn with replacement is what is printed."""
    sums = user_sums(_answers(), metric)

    assert sums is not None
    mean = sums.totals.sum() / sums.weights.sum()
    assert (math.sqrt(mean) if sums.is_root else mean) == pytest.approx(figures(_answers())[metric])


def test_who_cannot_rate_or_rank_has_no_figure() -> None:
    """A dash, not a zero."""
    unrated = _answers(predicted=np.full(3, np.nan, np.float32), unclipped=np.full(3, np.nan, np.float32))
    unranked = _answers(lists=np.full((2, 10), -1))

    assert math.isnan(figures(unrated)["rmse"])
    assert user_sums(unrated, "rmse") is None
    assert math.isnan(figures(unranked)["ndcg"])
    assert user_sums(unranked, "mrr") is None


def test_calibration_counts_what_lay_within() -> None:
    """Errors 1, 0 and 2 with deviations 1, .1 and 1: two of three lie within; groups by known ratings."""
    overall, unknown, many = calibration(_answers())

    assert (overall.low, overall.num_rows) == (-1, 3)
    assert overall.covered == pytest.approx(2 / 3)
    assert (unknown.low, unknown.num_rows, unknown.covered) == (0, 2, 1)
    assert (many.low, many.num_rows, many.covered) == (20, 1, 0)
    assert calibration(_answers(deviations=np.full(3, np.nan, np.float32))) == []
