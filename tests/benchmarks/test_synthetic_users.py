"""The users of the store's benchmarks are as many and as different as they say."""

import numpy as np
import pytest

from benchmarks.synthetic_users import SyntheticUsers


@pytest.mark.parametrize(("num_entries", "num_movies"), [(10, 10_000), (50, 10_000), (5000, 10_000), (40, 40)])
def test_no_user_watched_a_movie_twice(num_entries: int, num_movies: int) -> None:
    """Also where almost the whole catalogue was watched; and the popular movies come first in it."""
    (block,) = SyntheticUsers(20, num_entries, num_movies).blocks()

    assert all(len(set(rows)) == num_entries for rows in block.movie_rows.tolist())
    assert block.movie_rows.min() >= 0
    assert block.movie_rows.max() < num_movies
    assert np.median(block.movie_rows) <= num_movies / 2


def test_blocks_cover_all_users_and_can_be_made_again() -> None:
    """Whoever checks what arrived makes the same blocks as whoever sent them."""
    users = SyntheticUsers(2500, 5, 100)

    first, again = list(users.blocks()), list(users.blocks())

    assert [len(block.user_ids) for block in first] == [1000, 1000, 500]
    assert len({user_id for block in first for user_id in block.user_ids}) == 2500
    for one, other in zip(first, again, strict=True):
        assert one.profiles == other.profiles
        assert np.array_equal(one.movie_rows, other.movie_rows)
        assert np.array_equal(one.event_times_ms, other.event_times_ms)
    assert not np.array_equal(first[0].movie_rows, first[1].movie_rows)
