"""Strangers are strangers: nothing of them is learnt, and what is told of them grows on the same judged rows."""

from itertools import pairwise

import numpy as np
import pytest

from tests.toy_dataset import toy_dataset
from trainer.comparison.cold_start import ColdStart, divide_cold, parse_cold_start
from trainer.dataset import Interactions
from trainer.errors import HoldoutError


def _pairs(rows: Interactions) -> set[tuple[int, int]]:
    return set(zip(rows.user_rows.tolist(), rows.movie_rows.tolist(), strict=True))


def test_new_users_are_in_no_training_row() -> None:
    """A fifth of each one's rows is judged, and 0, 1, 5, 20 or all of the others are told, each more than the last."""
    data = toy_dataset(rows_per_user=30)

    parts = divide_cold(data, ColdStart("new-users", 0.2), seed=3)

    strangers = set(parts.held_out.user_rows.tolist())
    assert len(strangers) == 12
    assert not strangers & set(parts.train.user_rows.tolist())
    assert np.bincount(parts.held_out.user_rows)[list(strangers)].tolist() == [6] * 12
    told = [_pairs(rows) for rows in parts.known.values()]
    assert list(parts.known) == ["0", "1", "5", "20", "all"]
    assert [len(pairs) for pairs in told] == [0, 12, 60, 240, 288]
    assert all(fewer <= more for fewer, more in pairwise(told))
    assert not told[-1] & _pairs(parts.held_out)


def test_new_movies_are_in_no_training_row() -> None:
    """All their rows are judged, of users who have others."""
    data = toy_dataset()

    parts = divide_cold(data, ColdStart("new-movies", 0.1), seed=0)

    strangers = set(parts.held_out.movie_rows.tolist())
    assert len(strangers) == 3
    assert not strangers & set(parts.train.movie_rows.tolist())
    assert len(parts.held_out) + len(parts.train) == len(data.interactions)
    assert parts.known["new movies"] is parts.train


def test_data_without_enough_rows_a_user_is_refused() -> None:
    """Twenty ratings cannot be told of a user who has fifteen."""
    with pytest.raises(HoldoutError, match="held-out users need 25 rows each"):
        divide_cold(toy_dataset(rows_per_user=15), ColdStart("new-users", 0.1), seed=0)


@pytest.mark.parametrize("text", ["new-users", "new-users:0", "new-movies:1", "new-films:0.1"])
def test_malformed_cold_starts_are_refused(text: str) -> None:
    """With an example that works."""
    with pytest.raises(HoldoutError, match=r"new-users:0\.1"):
        parse_cold_start(text)
    assert str(parse_cold_start("new-users:0.1")) == "new-users:0.1"
