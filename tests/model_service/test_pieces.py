"""Large tasks are cut into pieces that fit a batch, and callers never notice."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_service.filters import MovieFilter
from model_service.pieces import cut, join, rows_of
from model_service.queries import (
    AnsweredUsers,
    NamedUsers,
    RatingAnswer,
    RatingTask,
    SimilarTask,
    Source,
    TopKAnswer,
    TopKTask,
    UserOutcome,
    UserQuery,
)
from two_tower.recommending import RankedRow, Wish
from two_tower.top_k import Ranked


def users_of(number):
    """Returns users, every second time as nothing but their ids."""
    ids = [f"u{place}" for place in range(number)]
    return NamedUsers(ids) if number % 2 else [UserQuery(user_id) for user_id in ids]


def answered(task):
    size = len(task.users)
    versions = [query.user_id for query in task.users]
    return AnsweredUsers([UserOutcome.OK] * size, [Source.PERSONAL] * size, versions, [7] * size)


def answer(task):
    """Answers so that each number tells whose it is."""
    if isinstance(task, TopKTask):
        rows = [
            RankedRow(Ranked(np.array([int(query.user_id[1:])]), np.zeros(1, np.float32)), None) for query in task.users
        ]
        return TopKAnswer(None, answered(task), rows)
    names = [int(task.users[position].user_id[1:]) for position in task.positions.tolist()]
    numbers = np.array(names, np.float32) * 1000 + task.movie_numbers
    deviations = numbers + 3 if task.with_deviations else None
    return RatingAnswer(None, answered(task), numbers, numbers + 1, numbers + 2, deviations)


@given(data=st.data(), num_users=st.integers(1, 12), max_rows=st.integers(1, 5))
def test_ratings_come_back_in_the_order_in_which_they_were_asked(data, num_users, max_rows):
    """Whichever piece a pair was in."""
    positions = data.draw(st.lists(st.integers(0, num_users - 1), min_size=1, max_size=30))
    movies = np.arange(len(positions), dtype=np.int64)
    task = RatingTask("c", users_of(num_users), np.array(positions, np.int64), movies, with_deviations=True)

    parts = cut(task, max_rows)
    joined = join(task, [answer(part) for part in parts])

    whole = answer(task)
    assert all(len(part.users) <= max_rows for part in parts)
    assert joined.users == whole.users
    for name in ("ratings", "rounded_ratings", "scores", "deviations"):
        np.testing.assert_array_equal(getattr(joined, name), getattr(whole, name))


@given(num_users=st.integers(1, 12), max_rows=st.integers(1, 5))
def test_lists_come_back_in_the_order_of_their_users(num_users, max_rows):
    """One list each, nobody twice."""
    task = TopKTask("c", users_of(num_users), Wish(1), MovieFilter(), True)

    joined = join(task, [answer(part) for part in cut(task, max_rows)])

    assert [row.ranked.numbers.tolist() for row in joined.rows] == [[number] for number in range(num_users)]
    assert joined.users == answered(task)


def test_what_fits_is_not_cut():
    """The usual request goes its way untouched."""
    task = TopKTask("c", users_of(3), Wish(1), MovieFilter(), True)
    similar = SimilarTask("c", 0, 1, MovieFilter())

    assert cut(task, 3)[0] is task
    assert cut(similar, 1)[0] is similar


@pytest.mark.parametrize("max_rows", [1, 2])
def test_pieces_ask_what_the_whole_asks(max_rows):
    """Filter, k and seen movies are those of the caller."""
    task = TopKTask("c", users_of(3), Wish(7), MovieFilter(year_min=1990), False)

    for part in cut(task, max_rows):
        assert (part.wish.k, part.movie_filter, part.exclude_seen) == (7, task.movie_filter, False)


def test_a_piece_that_is_explained_holds_fewer_users():
    """Each of them costs up to 50 embeddings, so that he counts as ten; a user alone is never cut."""
    task = TopKTask("c", users_of(50), Wish(7, explain=1), MovieFilter(), False)

    parts = cut(task, 250)

    assert [len(part.users) for part in parts] == [25, 25]
    assert [rows_of(part) for part in parts] == [250, 250]
    assert rows_of(SimilarTask("c", 0, 1, MovieFilter())) == 1
    assert [len(part.users) for part in cut(task, 5)] == [1] * 50


def test_deviations_that_nobody_asked_for_stay_away():
    """Also from an answer that was put together."""
    task = RatingTask("c", users_of(4), np.arange(4), np.arange(4))

    joined = join(task, [answer(part) for part in cut(task, 2)])

    assert joined.deviations is None
