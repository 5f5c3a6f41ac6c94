"""Turns imported history columns into the values that Redis keeps. Knows arrays; knows no Redis and no wire.

It does with arrays what scripts/merge_events.lua does event by event, for users who are not stored yet: the newest
event per movie, the newest rated one beside it, the window and its floor. Imported entries have event hash 0.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from feature_service.seen_sets import pack_seen_sets
from feature_service.value_format import ENTRY, pack_states

_Numbers = NDArray[np.int64]
# Holds 9999-12-31 in milliseconds; beside it a user's place in a call fits 63 bits.
_TIME_BITS = 48


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
    numbers, times, ratings = columns.numbers, columns.times_ms, columns.ratings
    if deleted_at_ms.any():
        alive = (deleted_at_ms[users] == 0) | (times > deleted_at_ms[users])
        users, numbers, times, ratings = users[alive], numbers[alive], times[alive], ratings[alive]
    ratings = ratings + np.float32(0)  # -0 and 0 are the same stars and must be the same bytes
    rated = ~np.isnan(ratings)

    # Grouped by user and movie, numbers ascending; one sort of one key takes a quarter of the time of one by four.
    pairs = users << 32 | numbers
    order = np.argsort(pairs, kind="stable")
    last = np.ones(len(users), np.bool_)  # last of its (user, movie): the newest event
    last[:-1] = pairs[order[1:]] != pairs[order[:-1]]
    if not last.all():
        order = np.lexsort((np.where(rated, ratings, -np.inf), times, pairs))
    users, numbers, times, ratings, rated = users[order], numbers[order], times[order], ratings[order], rated[order]
    newest = np.flatnonzero(last)
    # For every row the nearest rated row at or before it; of its own movie, or it does not count.
    rated_row = np.maximum.accumulate(np.where(rated, np.arange(len(users)), -1))[newest]
    has_rating = rated_row >= 0
    has_rating &= (users[rated_row] == users[newest]) & (numbers[rated_row] == numbers[newest])

    num_watched = np.bincount(users[newest], minlength=num_users)
    starts = np.concatenate([[0], np.cumsum(num_watched)])
    seen = pack_seen_sets(numbers[newest], starts)

    # Newest first, of the same time the highest number: it comes first when what is sorted is turned round before.
    newest, rated_row, has_rating = newest[::-1], rated_row[::-1], has_rating[::-1]
    by_age = np.argsort((users[newest] << _TIME_BITS) + ((1 << _TIME_BITS) - 1 - times[newest]), kind="stable")
    newest, rated_row, has_rating = newest[by_age], rated_row[by_age], has_rating[by_age]
    owner = users[newest]
    kept = np.arange(len(newest)) - starts[owner] < window
    if (num_watched >= window).any():
        has_rating &= ~_below_floor(numbers[newest], times[newest], times[rated_row], owner, starts, window)
    apart = has_rating & (rated_row != newest)

    entries = np.zeros(len(newest), ENTRY)
    entries["number"] = numbers[newest]
    entries["rating"] = np.where(has_rating, ratings[rated_row], np.float32(np.nan))
    entries["time_ms"] = times[newest]
    older = entries[apart & kept]
    older["time_ms"] = times[rated_row][apart & kept]
    older_starts = np.concatenate([[0], np.cumsum(np.bincount(owner[apart & kept], minlength=num_users))])
    states = pack_states(entries.tobytes(), starts, older.tobytes(), older_starts, window)
    return [PreparedUser(*both) for both in zip(states, seen, strict=True)]


def _below_floor(
    numbers: _Numbers, times: _Numbers, rated_times: _Numbers, owner: _Numbers, starts: _Numbers, window: int
) -> NDArray[np.bool_]:
    """Returns whose rated event comes before the oldest kept movie of a full window.

    Args:
        numbers: Of each watched movie; those of a user together, newest first. [W]
        times: Of its newest event. [W]
        rated_times: Of its newest rated event. [W]
        owner: Its user. [W]
        starts: User b has movies starts[b]:starts[b + 1]. [B + 1]
        window: Newest movies to keep per user.
    """
    full = np.diff(starts) >= window
    floor = np.where(full, starts[:-1] + window - 1, 0)[owner]  # row of each full user's oldest kept movie
    older = (rated_times < times[floor]) | ((rated_times == times[floor]) & (numbers < numbers[floor]))
    below: NDArray[np.bool_] = full[owner] & older
    return below
