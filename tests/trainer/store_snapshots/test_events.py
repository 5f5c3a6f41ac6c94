"""Events merge as the store merges them, in whatever order and however often they come."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from marquee.client.user_digest import user_digest

from trainer.store_snapshots.events import Events, Watched, after_deletion, deletion_times, merge

Event = tuple[int, int, int, int, float | None]

EVENT = st.tuples(
    st.integers(0, 2), st.integers(0, 2), st.integers(0, 3), st.integers(0, 2), st.sampled_from([None, -0.0, 1.0, 5.0])
)


def events(*rows: Event) -> Events:
    """Returns events of (user, movie, time, hash, stars)."""
    return Events(
        np.array([row[0] for row in rows], np.int64),
        np.array([row[1] for row in rows], np.int64),
        np.array([row[2] for row in rows], np.int64),
        np.array([row[3] for row in rows], np.uint64),
        np.array([np.nan if row[4] is None else row[4] for row in rows], np.float32),
    )


def told(watched: Watched) -> list[tuple[int, int, int, float | None]]:
    """Returns user, movie, time and stars of each row, in order."""
    newest = watched.newest
    return [
        (user, movie, time, None if np.isnan(stars) else stars)
        for user, movie, time, stars in zip(
            newest.users.tolist(),
            newest.movies.tolist(),
            newest.times_ms.tolist(),
            watched.ratings.tolist(),
            strict=True,
        )
    ]


def by_hand(rows: list[Event]) -> list[tuple[int, int, int, float | None]]:
    """Says the same, one event after the other."""

    def key(row: Event) -> tuple[int, int, float]:
        return row[2], row[3], -np.inf if row[4] is None else row[4]

    found = []
    for user, movie in {row[:2] for row in rows}:
        mine = [row for row in rows if row[:2] == (user, movie)]
        rated = [row for row in mine if row[4] is not None]
        stars = max(rated, key=key)[4] if rated else None
        found.append((user, movie, max(mine, key=key)[2], None if stars is None else stars + 0.0))
    return sorted(found, key=lambda row: (row[0], row[2], row[1]))


def test_the_newest_event_counts_and_an_unrated_one_keeps_the_stars() -> None:
    """Watched again without a rating: the time is the new one, the stars are those given before."""
    found = merge(events((0, 1, 10, 5, 4.0), (0, 1, 20, 6, None), (0, 0, 20, 7, 2.0), (0, 1, 5, 9, 1.0)))

    assert told(found) == [(0, 0, 20, 2.0), (0, 1, 20, 4.0)]


def test_of_one_moment_the_higher_hash_counts_and_then_the_higher_rating() -> None:
    """As in the store: (time, hash, rating), no rating lowest."""
    found = merge(events((0, 0, 1, 2, 3.0), (0, 0, 1, 1, 5.0), (0, 1, 1, 1, None), (0, 1, 1, 1, 2.0)))

    assert told(found) == [(0, 0, 1, 3.0), (0, 1, 1, 2.0)]


@settings(deadline=None, max_examples=200)
@given(st.lists(EVENT, max_size=14), st.randoms(use_true_random=False), st.integers(0, 14))
def test_any_order_repetition_and_division_comes_to_the_same(rows: list[Event], chance, cut: int) -> None:
    """What was merged before and what came since give what all at once would have given."""
    shuffled = rows + rows[:cut]
    chance.shuffle(shuffled)

    at_once = merge(events(*rows))
    in_parts = merge(Events.joined([merge(events(*shuffled[:cut])).as_events(), events(*shuffled[cut:])]))

    assert told(at_once) == told(in_parts) == by_hand(rows)
    for name in ("rated_times_ms", "rated_hashes"):
        np.testing.assert_array_equal(getattr(at_once, name), getattr(in_parts, name))
    assert [len(each) for each in (merge(at_once.as_events()), at_once)] == [len(by_hand(rows))] * 2


def test_a_deletion_takes_what_was_before_it_and_its_own_moment() -> None:
    """The digest stands for the id; other users keep theirs."""
    users = ["ann", "bob"]
    deleted = deletion_times(users, {user_digest("ann"): 10, user_digest("nobody"): 99})

    left = after_deletion(
        events((0, 0, 9, 0, 1.0), (0, 0, 10, 0, 2.0), (0, 0, 11, 0, None), (1, 0, 9, 0, 3.0)), deleted
    )

    assert deleted.tolist() == [10, 0]
    assert told(merge(left)) == [(0, 0, 11, None), (1, 0, 9, 3.0)]


def test_nothing_merges_to_nothing() -> None:
    """A log without events is no special case."""
    assert len(merge(Events.none())) == 0
    assert told(merge(events((0, 0, 0, 0, None)))) == [(0, 0, 0, None)]
