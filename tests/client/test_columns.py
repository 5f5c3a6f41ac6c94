"""Columns cross the wire unchanged and within limits."""

import numpy as np
import pytest
from marquee.client.columns import (
    MAX_IMPORT_ENTRIES,
    MAX_IMPORT_MOVIES,
    MAX_IMPORT_USERS,
    ColumnsError,
    decode_user_columns,
    import_requests,
)
from marquee.v1 import user_pb2


def columns(**changes) -> user_pb2.UserColumns:
    """Two users: one with two entries, one with none."""
    fields = {
        "statuses": [user_pb2.USER_STATUS_FOUND, user_pb2.USER_STATUS_NOT_FOUND],
        "profiles": [user_pb2.UserProfile(age=7), user_pb2.UserProfile()],
        "user_versions": ["a", "b"],
        "lengths": np.array([2, 0], "<u4").tobytes(),
        "movie_numbers": np.array([5, 3], "<u4").tobytes(),
        "ratings": np.array([4.5, np.nan], "<f4").tobytes(),
        "event_times_ms": np.array([2**41, 0], "<i8").tobytes(),
        "num_watched": np.array([3, 0], "<u4").tobytes(),
        "deleted_at_ms": np.array([0, 9], "<i8").tobytes(),
    }
    return user_pb2.UserColumns(**{**fields, **changes})


def test_columns_are_decoded():
    """Every array arrives with its offsets."""
    rows = decode_user_columns(columns())

    assert len(rows) == 2
    assert rows.offsets.tolist() == [0, 2, 2]
    assert rows.movie_numbers.tolist() == [5, 3]
    np.testing.assert_array_equal(rows.ratings, np.array([4.5, np.nan], np.float32))
    assert rows.event_times_ms.tolist() == [2**41, 0]
    assert (rows.num_watched.tolist(), rows.deleted_at_ms.tolist()) == ([3, 0], [0, 9])
    assert rows.profiles[0].age == 7
    assert rows.seen_numbers is None


def test_seen_numbers_are_decoded():
    """Seen numbers come with offsets of their own and a mark where they had no room."""
    rows = decode_user_columns(
        columns(
            seen_lengths=np.array([3, 0], "<u4").tobytes(),
            seen_numbers=np.array([1, 3, 5], "<u4").tobytes(),
            seen_omitted=bytes([0, 1]),
        )
    )

    assert rows.seen_offsets.tolist() == [0, 3, 3]
    assert rows.seen_numbers.tolist() == [1, 3, 5]
    assert rows.seen_omitted.tolist() == [False, True]


@pytest.mark.parametrize(
    "change", [{"lengths": b"\0" * 4}, {"movie_numbers": b"\0" * 7}, {"ratings": b""}, {"user_versions": ["a"]}]
)
def test_arrays_that_contradict_each_other_are_refused(change):
    """A short array is an error, never a shifted answer."""
    with pytest.raises(ColumnsError):
        decode_user_columns(columns(**change))


def flatten(requests):
    """Lists (user, movie, rating, time) of requests in order."""
    rows = []
    for request in requests:
        user_of_entry = np.repeat(request.user_ids, np.frombuffer(request.lengths, "<u4"))
        movies = [request.movie_ids[index] for index in np.frombuffer(request.movie_indices, "<u4")]
        ratings = np.frombuffer(request.ratings, "<f4").tolist()
        times = np.frombuffer(request.event_times_ms, "<i8").tolist()
        rows += list(zip(user_of_entry.tolist(), movies, ratings, times, strict=True))
    return rows


@pytest.mark.parametrize("num_movies", [50, MAX_IMPORT_MOVIES + 1])
@pytest.mark.parametrize("lengths", [[3, 0, 2], [1] * 2500, [60_000, 5, 120_001], [0], []])
def test_an_import_is_cut_into_requests_within_the_limits(lengths, num_movies):
    """Nothing is lost or reordered, no request exceeds a limit or names a user twice, empty users are kept."""
    rng = np.random.default_rng(0)
    user_ids = [f"u{i}" for i in range(len(lengths))]
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    movie_ids = [f"m{i}" for i in range(num_movies)]
    movie_rows = rng.integers(0, num_movies, offsets[-1])
    ratings = rng.integers(1, 6, offsets[-1]).astype(np.float32)
    times = rng.integers(0, 2**41, offsets[-1])

    requests = list(import_requests(user_ids, offsets, movie_ids, movie_rows, ratings, times, not_for_evaluation=True))

    users = np.repeat(user_ids, lengths).tolist() if user_ids else []
    movies = [movie_ids[row] for row in movie_rows]
    assert flatten(requests) == list(zip(users, movies, ratings.tolist(), times.tolist(), strict=True))
    assert {user for request in requests for user in request.user_ids} == set(user_ids)
    for request in requests:
        assert request.not_for_evaluation
        assert 1 <= len(request.user_ids) <= MAX_IMPORT_USERS
        assert len(set(request.user_ids)) == len(request.user_ids)
        assert len(request.ratings) // 4 <= MAX_IMPORT_ENTRIES
        assert len(request.movie_ids) <= MAX_IMPORT_MOVIES
        assert request.ByteSize() < 4 * 1024 * 1024
