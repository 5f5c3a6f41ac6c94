"""Which events count, how old each is, and how histories are padded."""

import numpy as np
import pytest

from two_tower.models.marquee_histories import CountedEvents
from two_tower.user_columns import Histories

NAN = float("nan")


def histories(*users: list[tuple[int, float, int]]) -> Histories:
    """Each user is a list of (movie, stars, time), newest first."""
    events = [event for user in users for event in user]
    return Histories(
        np.concatenate(([0], np.cumsum([len(user) for user in users]))).astype(np.int64),
        np.array([event[0] for event in events], np.int32),
        np.array([event[1] for event in events], np.float32),
        np.array([event[2] for event in events], np.int64),
        np.ones(len(users), np.bool_),
    )


def test_only_newer_events_count_for_a_user_whom_the_checkpoint_has_read() -> None:
    """An event of the checkpoint's last moment is old, and so is one without a time; other users keep all."""
    stored = histories([(5, 4, 101), (6, 3, 100), (7, 2, 0)], [], [(5, 4, 101), (7, 2, 0)])

    events = CountedEvents.of(stored, np.array([True, True, False]), data_until_ms=100)

    assert events.offsets.tolist() == [0, 1, 1, 3]
    assert events.movie_numbers.tolist() == [5, 5, 7]


def test_ages_count_the_newer_events_of_the_same_user() -> None:
    """The newest event has age 0, whoever stands before him in the batch."""
    events = CountedEvents.of(histories([(1, 3, 9), (2, 3, 8)], [(3, 3, 7)]), np.zeros(2, np.bool_), 0)

    assert events.ages().tolist() == [0, 1, 0]


@pytest.mark.parametrize("sizes", [[0, 1, 3, 4, 5, 200, 201, 300], [0], [], [7] * 5000])
def test_every_rated_event_stands_in_one_place(sizes: list[int]) -> None:
    """Blocks hold each rated event once, under its user, and no event without a rating."""
    rng = np.random.default_rng(0)
    users = [[(int(movie), NAN if movie % 5 == 0 else 3.0, 1) for movie in rng.permutation(size)] for size in sizes]
    events = CountedEvents.of(histories(*users), np.zeros(len(sizes), np.bool_), 0)

    placed: list[tuple[int, int]] = []
    for block in events.rated_blocks():
        for user, entries, inside in zip(block.users, block.entries, block.inside, strict=True):
            placed += [(int(user), int(entry)) for entry in entries[inside]]

    owners = np.repeat(np.arange(len(sizes)), sizes)
    rated = np.flatnonzero(~np.isnan(events.ratings))
    assert sorted(placed) == [(int(owners[entry]), int(entry)) for entry in rated]


def test_the_padded_length_of_a_user_depends_on_him_alone() -> None:
    """Else his answer would change in the last digits with the company that he is in."""
    short, long = [(movie, 3.0, 1) for movie in range(5)], [(movie, 3.0, 1) for movie in range(150)]

    alone = CountedEvents.of(histories(short), np.zeros(1, np.bool_), 0).rated_blocks()
    together = CountedEvents.of(histories(long, short), np.zeros(2, np.bool_), 0).rated_blocks()

    assert next(alone).inside.shape[1] in {block.inside.shape[1] for block in together if 1 in block.users}
