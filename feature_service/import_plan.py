"""Turns imported history columns into the values that Redis keeps. Knows arrays; knows no Redis and no wire.

It does with arrays what scripts/merge_events.lua does event by event, for users who are not stored yet: the newest
event per movie, the newest rated one beside it, the window and its floor. Imported entries have event hash 0.
"""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from feature_service.value_format import ENTRY, pack_seen, pack_state


@dataclass(frozen=True, slots=True)
class ImportColumns:
    """E history entries of B users, laid end to end.

    Attributes:
        lengths: Entries per user. int64 [B]
        numbers: Catalogue numbers. int64 [E]
        ratings: Stars, NaN where not rated. float32 [E]
        times_ms: Epoch milliseconds. int64 [E]
    """

    lengths: NDArray[np.int64]
    numbers: NDArray[np.int64]
    ratings: NDArray[np.float32]
    times_ms: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class PreparedUser:
    """What to write for one user who is not stored yet; both are empty if nothing is.

    Attributes:
        state: Profile (none) and history window.
        seen: Seen set.
    """

    state: bytes
    seen: bytes


def prepare(columns: ImportColumns, window: int, deleted_at_ms: NDArray[np.int64]) -> list[PreparedUser]:
    """Returns what to write per user.

    Args:
        columns: The imported entries.
        window: Newest movies to keep per user.
        deleted_at_ms: When each user was deleted, 0 if never: his entries up to then are left out. int64 [B]
    """
    num_users = len(columns.lengths)
    users = np.repeat(np.arange(num_users), columns.lengths)  # [E]
    alive = (deleted_at_ms[users] == 0) | (columns.times_ms > deleted_at_ms[users])
    users, numbers, times = users[alive], columns.numbers[alive], columns.times_ms[alive]
    ratings = columns.ratings[alive] + np.float32(0)  # -0 and 0 are the same stars and must be the same bytes
    rated = ~np.isnan(ratings)

    order = np.lexsort((np.where(rated, ratings, -np.inf), times, numbers, users))
    users, numbers, times, ratings, rated = users[order], numbers[order], times[order], ratings[order], rated[order]
    last = np.ones(len(users), np.bool_)  # last of its (user, movie): the newest event
    last[:-1] = (users[1:] != users[:-1]) | (numbers[1:] != numbers[:-1])
    # For every row the nearest rated row at or before it; of its own movie, or it does not count.
    nearest = np.maximum.accumulate(np.where(rated, np.arange(len(users)), -1))
    newest = np.flatnonzero(last)
    rated_row = nearest[newest]
    has_rating = (
        (rated_row >= 0) & (users[rated_row] == users[newest]) & (numbers[rated_row] == numbers[newest])
        if len(newest)
        else np.zeros(0, np.bool_)
    )

    by_age = np.lexsort((-numbers[newest], -times[newest], users[newest]))
    newest, rated_row, has_rating = newest[by_age], rated_row[by_age], has_rating[by_age]
    owner = users[newest]
    num_watched = np.bincount(owner, minlength=num_users)
    starts = np.concatenate([[0], np.cumsum(num_watched)])
    place = np.arange(len(newest)) - starts[owner]
    kept = place < window
    full = num_watched >= window
    floor = np.minimum(starts[:-1] + window - 1, max(len(newest) - 1, 0))  # row of each full user's oldest kept movie
    if len(newest):
        own_floor = floor[owner]
        floor_time, floor_number = times[newest[own_floor]], numbers[newest[own_floor]]
        rated_time, number = times[rated_row], numbers[newest]
        below = (rated_time < floor_time) | ((rated_time == floor_time) & (number < floor_number))
        has_rating &= ~(full[owner] & below)
    apart = has_rating & (rated_row != newest)

    entries = np.zeros(len(newest), ENTRY)
    entries["number"] = numbers[newest]
    entries["rating"] = np.where(has_rating, ratings[rated_row], np.float32(np.nan))
    entries["time_ms"] = times[newest]
    older = entries.copy()
    older["time_ms"] = times[rated_row]
    return [
        PreparedUser(b"", b"")
        if begin == end
        else PreparedUser(
            pack_state(
                b"",
                entries[begin : begin + window][: end - begin].tobytes(),
                older[begin:end][(apart & kept)[begin:end]].tobytes(),
                end - begin,
            ),
            pack_seen(np.sort(entries["number"][begin:end])),
        )
        for begin, end in pairwise(starts.tolist())
    ]
