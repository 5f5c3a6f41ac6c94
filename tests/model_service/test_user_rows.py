"""How stored users and what a request adds become what a user tower sees."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from marquee.client.columns import UserRows
from marquee.v1 import user_pb2

from model_service.queries import Source, UserQuery, Watched
from model_service.stored_user import stored_users
from model_service.user_rows import assemble, merge
from two_tower import checkpoint

NOW_MS = 1_700_000_000_000

events = st.lists(st.tuples(st.integers(0, 5), st.sampled_from([1.0, 4.5, math.nan]), st.integers(0, 4)), max_size=12)


def watched(rows):
    return Watched(
        np.array([row[0] for row in rows], np.int64),
        np.array([row[1] for row in rows], np.float32),
        np.array([row[2] for row in rows], np.int64),
    )


def rows_of(merged):
    return [
        (number, "unrated" if math.isnan(rating) else rating, time)
        for number, rating, time in zip(
            merged.movie_numbers.tolist(), merged.ratings.tolist(), merged.event_times_ms.tolist(), strict=True
        )
    ]


@given(newer=events, older=events)
def test_merging_keeps_the_newest_event_of_each_movie_and_its_last_rating(newer, older):
    """As a walk through all events says, one movie after another."""
    merged = merge(watched(newer), watched(older))

    expected = []
    for number in {row[0] for row in newer + older}:
        # Stable: of equal times `newer` comes first, and then the first listed.
        mine = sorted((row for row in newer + older if row[0] == number), key=lambda row: -row[2])
        rated = [row[1] for row in mine if not math.isnan(row[1])]
        expected.append((number, rated[0] if rated else "unrated", mine[0][2]))
    assert rows_of(merged) == sorted(expected, key=lambda row: (-row[2], -row[0]))


@given(rows=events)
def test_merging_with_what_was_merged_changes_nothing(rows):
    """A client that repeats itself is not punished."""
    once = merge(watched(rows), watched([]))

    assert rows_of(merge(watched(rows), once)) == rows_of(once)


@pytest.fixture
def checkpoint_of(train):
    """Loads a checkpoint with given properties."""

    def load(version="v1", **fields):
        return checkpoint.load(train(version, **fields))

    return load


def read(*histories, seen=None, limit, num_watched=None, status=user_pb2.USER_STATUS_FOUND, deleted_at_ms=0):
    """Returns users whose histories are (number, time) pairs, newest first, cut to what was asked for."""
    cut = [history[:limit] for history in histories]
    entries = [entry for history in cut for entry in history]
    size = len(histories)
    rows = UserRows(
        statuses=np.full(size, status, np.int32),
        profiles=[user_pb2.UserProfile()] * size,
        user_versions=["0123456789abcdef.1.1"] * size,
        offsets=np.concatenate(([0], np.cumsum([len(history) for history in cut]))).astype(np.int64),
        movie_numbers=np.array([number for number, _ in entries], np.int32),
        ratings=np.full(len(entries), 4.0, np.float32),
        event_times_ms=np.array([time for _, time in entries], np.int64),
        num_watched=np.array([len(history) for history in histories] if num_watched is None else num_watched),
        deleted_at_ms=np.full(size, deleted_at_ms, np.int64),
        expires_at_ms=np.zeros(size, np.int64),
        seen_offsets=None if seen is None else np.array([0, len(seen)], np.int64),
        seen_numbers=None if seen is None else np.array(seen, np.int32),
    )
    return stored_users(rows)


def assert_same_histories(found, expected):
    for name in ("offsets", "movie_numbers", "ratings", "event_times_ms", "complete"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name), name)


@pytest.mark.parametrize("length", [0, 2, 3, 5])
def test_inline_and_stored_histories_look_alike_to_the_tower(checkpoint_of, length):
    """Also where the window cuts them: neither is complete then."""
    v1 = checkpoint_of(window=3)
    history = [(number, 1000 - 10 * number) for number in range(length)]
    said = [(number, 4.0, time) for number, time in reversed(history)]

    inline = assemble([UserQuery(None, history=watched(said))], [None], v1, NOW_MS)
    stored = assemble([UserQuery("carl")], read(history, limit=3), v1, NOW_MS)

    assert_same_histories(inline.columns.histories, stored.columns.histories)
    assert stored.columns.histories.complete.tolist() == [length <= 3]
    assert sorted(inline.seen[0].tolist()) == list(range(length))


def test_data_without_times_sees_inline_movies_as_the_store_keeps_them(checkpoint_of):
    """At time 0, by catalogue number; with times they would stand as they were given."""
    given = Watched(np.array([1, 3, 2]), np.full(3, 4.0, np.float32), None)

    untimed = checkpoint_of("untimed", has_times=False)
    inline = assemble([UserQuery(None, history=given)], [None], untimed, NOW_MS)
    stored = assemble([UserQuery("carl")], read([(3, 0), (2, 0), (1, 0)], limit=200), untimed, NOW_MS)
    timed = assemble([UserQuery(None, history=given)], [None], checkpoint_of("timed"), NOW_MS)

    assert_same_histories(inline.columns.histories, stored.columns.histories)
    assert timed.columns.histories.movie_numbers.tolist() == [1, 3, 2]


def test_session_events_without_times_are_newer_than_all_that_is_stored(checkpoint_of):
    """Even than an event from the future, and in the order in which they were given."""
    session = Watched(np.array([7, 5]), np.full(2, np.nan, np.float32), None)
    stored = read([(1, NOW_MS + 5000)], [(2, 10)], limit=200)

    users = assemble(
        [UserQuery("a", session=session), UserQuery("b", session=session)], stored, checkpoint_of(), NOW_MS
    )

    assert users.columns.histories.movie_numbers.tolist() == [7, 5, 1, 7, 5, 2]
    assert users.columns.histories.event_times_ms.tolist() == [
        NOW_MS + 5002,
        NOW_MS + 5001,
        NOW_MS + 5000,
        NOW_MS,
        NOW_MS - 1,
        10,
    ]


def test_what_was_watched_in_the_session_counts_as_seen(checkpoint_of):
    """Beside all that the store says, also of a user whom the store does not have, and of an anonymous one."""
    session = Watched(np.array([7, 5]), np.full(2, np.nan, np.float32), None)
    [stored] = read([(1, 10)], seen=[1, 9], limit=200)
    queries = [UserQuery("ann", session=session), UserQuery("carl", session=session), UserQuery(None, session=session)]

    users = assemble(queries, [stored, None, None], checkpoint_of(), NOW_MS)

    assert [sorted(seen.tolist()) for seen in users.seen] == [[1, 5, 7, 9], [5, 7], [5, 7]]


def test_a_history_is_complete_only_if_nothing_was_ever_trimmed(checkpoint_of):
    """Or if nothing can be told of a user whom the checkpoint knows and the store does not."""
    v1 = checkpoint_of()
    full = read([(1, 10)], [(1, 10)], limit=200, num_watched=[1, 2])
    absent = read([], [], limit=200, status=user_pb2.USER_STATUS_NOT_FOUND)
    queries = [UserQuery("ann"), UserQuery("carl")]

    found = assemble(queries, full, v1, NOW_MS)
    missing = assemble(queries, absent, v1, NOW_MS)

    assert found.columns.histories.complete.tolist() == [True, False]
    assert missing.columns.histories.complete.tolist() == [False, True]
    assert missing.sources == [Source.PERSONAL, Source.POPULAR]


def test_a_user_deleted_since_the_snapshot_loses_his_trained_vector(checkpoint_of):
    """One deleted before it, and trained on since, keeps it."""
    v1 = checkpoint_of()
    time_ms = v1.manifest.snapshot_time_ms

    after = assemble([UserQuery("ann")], read([], limit=9, deleted_at_ms=time_ms + 1), v1, NOW_MS)
    before = assemble([UserQuery("ann")], read([], limit=9, deleted_at_ms=time_ms), v1, NOW_MS)

    assert (after.columns.user_ids, after.sources) == ([None], [Source.POPULAR])
    assert (before.columns.user_ids, before.sources) == (["ann"], [Source.PERSONAL])
