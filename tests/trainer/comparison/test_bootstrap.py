"""Intervals hold the difference that is there, and see none where there is none."""

import numpy as np
import pytest

from trainer.comparison.bootstrap import UserSums, paired_interval


def _errors(rng: np.random.Generator, hard: np.ndarray, extra: float) -> UserSums:
    """Ten rows a user; some users are hard for everybody, and `extra` is added to each squared error on average."""
    noise = rng.normal(extra, 0.3, (len(hard), 10))
    return UserSums(np.arange(len(hard)), (hard[:, None] + noise).sum(axis=1), np.full(len(hard), 10.0))


def test_the_difference_itself_is_exact() -> None:
    """Means 2 and 1.5: the difference is that of the means, whatever is drawn."""
    contender = UserSums(np.array([0, 1]), np.array([4.0, 4.0]), np.array([2.0, 2.0]))
    reference = UserSums(np.array([0, 1]), np.array([2.0, 4.0]), np.array([2.0, 2.0]))

    found = paired_interval([contender], [reference])

    assert found.difference == pytest.approx(0.5)
    assert [found.low, found.high] == pytest.approx([0.0, 1.0])


def test_the_root_is_taken_of_the_mean_and_not_of_rows() -> None:
    """Squared errors of 1 and 7 over one row each: RMSE 2 against 1."""
    contender = UserSums(np.array([3, 9]), np.array([1.0, 7.0]), np.ones(2), is_root=True)
    reference = UserSums(np.array([3, 9]), np.ones(2), np.ones(2), is_root=True)

    assert paired_interval([contender], [reference]).difference == pytest.approx(1.0)


def test_intervals_hold_a_known_difference_as_often_as_they_say() -> None:
    """Of 100 experiments with a difference of .05, about 95 intervals hold it, though users differ by far more."""
    rng = np.random.default_rng(0)
    held = found_it = 0
    for experiment in range(100):
        hard = rng.exponential(2.0, 150)
        interval = paired_interval(
            [_errors(rng, hard, 0.05)], [_errors(rng, hard, 0.0)], seed=experiment, num_draws=400
        )
        held += interval.low <= 0.05 <= interval.high
        found_it += interval.low > 0

    assert 87 <= held <= 100
    assert found_it > 60


def test_a_user_keeps_his_rows_together_in_every_split() -> None:
    """The same users in two splits give the interval of one split, not one narrower by √2."""
    rng = np.random.default_rng(1)
    contender = UserSums(np.arange(200), rng.normal(0, 1, 200), np.ones(200))
    reference = UserSums(np.arange(200), np.zeros(200), np.ones(200))

    once = paired_interval([contender], [reference])
    twice = paired_interval([contender, contender], [reference, reference])

    assert twice.high - twice.low == pytest.approx(once.high - once.low)


def test_a_contender_equal_to_the_reference_differs_by_nothing() -> None:
    """And an interval of nothing but zero does not exclude it."""
    sums = UserSums(np.arange(20), np.arange(20.0), np.ones(20), is_root=True)

    found = paired_interval([sums], [sums])

    assert (found.difference, found.low, found.high, found.excludes_zero) == (0, 0, 0, False)


def test_splits_without_a_partner_are_refused() -> None:
    """A difference over other splits would not be paired."""
    sums = UserSums(np.arange(2), np.ones(2), np.ones(2))

    with pytest.raises(ValueError, match="2 splits of the contender, 1 of the reference"):
        paired_interval([sums, sums], [sums])
