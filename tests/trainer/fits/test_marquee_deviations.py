"""Deviations are made as wide as errors on rows that were held back from a clone."""

import numpy as np
import pytest

from tests.toy_dataset import toy_dataset
from trainer.dataset import Dataset
from trainer.fits.marquee_deviations import draw_questions, fit_factors, measure_factors
from two_tower.models.marquee import Marquee


def test_factors_of_known_parts_are_found() -> None:
    """Errors drawn with twice the user's variance, the movie's as it is and half the noise say so."""
    rng = np.random.default_rng(0)
    parts = np.stack([rng.uniform(0, 1, 40_000), rng.uniform(0, 0.5, 40_000), np.full(40_000, 0.6)])
    errors = np.abs(rng.normal(0, np.sqrt(np.array([2, 1, 0.5]) @ parts)))

    found = fit_factors(errors, parts, np.ones(40_000))

    assert [found.user, found.movie, found.noise] == pytest.approx([2, 1, 0.5], rel=0.15)


def test_80_percent_lie_within_whatever_the_errors_look_like() -> None:
    """Heavy tails and a part that is always 0 included; what weighs more counts for more."""
    rng = np.random.default_rng(1)
    parts = np.stack([np.zeros(5_000), rng.uniform(0, 1, 5_000), np.ones(5_000)])
    errors = np.abs(rng.standard_t(2, 5_000))
    weights = np.where(np.arange(5_000) < 1_000, 3.0, 1.0)

    found = fit_factors(errors, parts, weights)

    within = errors <= 1.2816 * np.sqrt(np.array([found.user, found.movie, found.noise]) @ parts)
    assert within @ weights / weights.sum() == pytest.approx(0.8, abs=0.002)


def test_what_is_asked_is_not_told() -> None:
    """Rows among the known ones and rows after them weigh the same, and every user is told at least one row."""
    rows = toy_dataset(num_users=300, rows_per_user=30).interactions

    questions = draw_questions(rows, True, np.random.default_rng(2))

    told, asked = rows.take(questions.told), rows.take(questions.asked)
    assert not questions.told[questions.asked].any()
    assert len(np.unique(told.user_rows)) == 300
    newest_told = np.zeros(300, np.int64)
    np.maximum.at(newest_told, told.user_rows, told.event_times_ms)
    later = asked.event_times_ms > newest_told[asked.user_rows]
    assert questions.weights[later].sum() == pytest.approx(1, rel=0.25)
    assert questions.weights[~later].sum() == pytest.approx(1, rel=0.25)


def test_users_of_all_numbers_of_known_ratings_are_asked_about() -> None:
    """Some of them as if they had rated one movie, others nearly all of theirs; no user more than 20 times over."""
    rows = toy_dataset(num_users=300, num_movies=80, rows_per_user=60).interactions

    questions = draw_questions(rows, True, np.random.default_rng(3))

    known = np.bincount(rows.take(questions.told).user_rows, minlength=300)
    asked = np.bincount(rows.take(questions.asked).user_rows, minlength=300)
    assert known.min() <= 2
    assert 0.05 < (known < 30).mean() < 0.25
    assert asked.max() <= 20


@pytest.mark.parametrize("rows_per_user", [1, 2, 15])
def test_too_few_rows_measure_nothing(rows_per_user: int) -> None:
    """Then deviations stay what the model believes, and no clone is fitted."""
    data = toy_dataset(rows_per_user=rows_per_user)

    def clone(part: Dataset) -> Marquee:
        raise AssertionError(f"asked to fit {len(part.interactions)} rows")

    assert measure_factors(data, clone, np.random.default_rng(0)) is None
