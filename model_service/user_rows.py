"""Makes of stored users and what a request adds the columns that a user tower takes. Knows no RPC and no score.

Session events merge as the store merges events: per movie the newest event counts, with the rating of the newest event
that has one; the whole is ordered by (event time, catalogue number), newest first, and cut to the model's window.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np
from numpy.typing import NDArray

from model_service.queries import ProfileFields, UserQuery, Watched
from model_service.stored_user import StoredUser
from two_tower.answer_source import Source, source_of
from two_tower.checkpoint import Checkpoint
from two_tower.user_columns import Histories, Profiles, UserColumns

_NOTHING = Watched(np.zeros(0, np.int64), np.zeros(0, np.float32), np.zeros(0, np.int64))


@dataclass(frozen=True, slots=True, eq=False)
class _Row:
    user_id: str | None
    profile: ProfileFields
    history: Watched
    complete: bool
    seen: NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class AssembledUsers:
    """B users, ready for the user tower.

    Attributes:
        columns: What the tower takes.
        sources: What each answer will be based on. [B]
        seen: Catalogue numbers that each user ever watched; of stored users only if they were read. [B]
    """

    columns: UserColumns
    sources: Sequence[Source]
    seen: Sequence[NDArray[np.int64]]


def assemble(
    queries: Sequence[UserQuery], stored: Sequence[StoredUser | None], checkpoint: Checkpoint, now_ms: int
) -> AssembledUsers:
    """Puts users together.

    Args:
        queries: Whom to answer for. [B]
        stored: What was read of each; None if nothing was. [B]
        checkpoint: Whose window, snapshot time and trained users count.
        now_ms: When session events without a time happened.
    """
    trained = checkpoint.model.knows_users([query.user_id for query in queries])
    rows = [
        _anonymous_row(query, checkpoint, now_ms)
        if query.user_id is None
        else _stored_row(query, user, bool(trained[b]), checkpoint, now_ms)
        for b, (query, user) in enumerate(zip(queries, stored, strict=True))
    ]
    columns = UserColumns(
        [row.user_id for row in rows],
        Profiles(
            [row.profile.gender for row in rows],
            np.array([np.nan if row.profile.age is None else row.profile.age for row in rows], np.float32),
            [row.profile.occupation for row in rows],
        ),
        Histories(
            # numpy takes longer to make an array of a list than the list takes to be summed up.
            np.array([0, *accumulate(len(row.history) for row in rows)], np.int64),
            np.concatenate([row.history.movie_numbers for row in rows]).astype(np.int32),
            np.concatenate([row.history.ratings for row in rows]).astype(np.float32),
            np.concatenate([_times(row.history) for row in rows]),
            np.array([row.complete for row in rows], np.bool_),
        ),
    )
    sources = [
        source_of(
            checkpoint.model,
            is_trained=bool(trained[b]) and row.user_id is not None,
            has_history=len(row.history) > 0,
            has_profile=not row.profile.is_empty,
        )
        for b, row in enumerate(rows)
    ]
    return AssembledUsers(columns, sources, [row.seen for row in rows])


def seen_by(query: UserQuery, stored: StoredUser | None) -> NDArray[np.int64]:
    """Returns the catalogue numbers of all that a stored user ever watched, as far as they were read."""
    seen = _NOTHING.movie_numbers if stored is None else stored.seen.astype(np.int64)
    return seen if query.session is None else np.concatenate([seen, query.session.movie_numbers])


def merge(newer: Watched, older: Watched) -> Watched:
    """Returns one entry per movie, newest first; of events at the same time `newer`, and then the first listed, wins.

    Both must have times.
    """
    numbers = np.concatenate([newer.movie_numbers, older.movie_numbers])
    if len(numbers) == 0:
        return _NOTHING
    times = np.concatenate([_times(newer), _times(older)])
    ratings = np.concatenate([newer.ratings, older.ratings])
    places = np.arange(len(numbers))
    by_movie = np.lexsort((places, -times, numbers))
    numbers, times, ratings = numbers[by_movie], times[by_movie], ratings[by_movie]
    starts = np.flatnonzero(np.concatenate(([True], numbers[1:] != numbers[:-1])))
    # The first rated entry of each movie, or one past the end.
    first_rated = np.minimum.reduceat(np.where(np.isnan(ratings), len(numbers), places), starts)
    kept = np.append(ratings, np.float32(np.nan))[first_rated]
    numbers, times = numbers[starts], times[starts]
    newest_first = np.lexsort((-numbers, -times))
    return Watched(numbers[newest_first], kept[newest_first], times[newest_first])


def _anonymous_row(query: UserQuery, checkpoint: Checkpoint, now_ms: int) -> _Row:
    given = query.history or _NOTHING
    if given.event_times_ms is None and not checkpoint.manifest.has_times:
        # Such a checkpoint has seen every history at time 0, as the store keeps it.
        given = Watched(given.movie_numbers, given.ratings, np.zeros(len(given), np.int64))
    history = merge(_timed(given, -1, now_ms), _NOTHING)
    history = _with_session(history, query.session, now_ms)
    cut = _cut(history, checkpoint.manifest.history_window)
    return _Row(None, query.profile, cut, len(cut) == len(history), history.movie_numbers)


def _stored_row(
    query: UserQuery, stored: StoredUser | None, trained: bool, checkpoint: Checkpoint, now_ms: int
) -> _Row:
    user_id: str | None = query.user_id
    profile, history = ProfileFields(), _NOTHING
    # Of a trained user whom the store does not have nothing is complete: the trained vector is all there is.
    complete = not trained
    if stored is not None:
        if stored.deleted_at_ms > checkpoint.manifest.snapshot_time_ms:
            user_id, complete = None, True
        if stored.found:
            profile, history = stored.profile, stored.history
            complete = stored.num_watched == len(history)
    whole = _with_session(history, query.session, now_ms)
    cut = _cut(whole, checkpoint.manifest.history_window)
    complete = complete and len(cut) == len(whole)
    return _Row(user_id, _overridden(profile, query.profile), cut, complete, seen_by(query, stored))


def _overridden(stored: ProfileFields, given: ProfileFields) -> ProfileFields:
    return ProfileFields(
        stored.gender if given.gender is None else given.gender,
        stored.age if given.age is None else given.age,
        stored.occupation if given.occupation is None else given.occupation,
    )


def _with_session(history: Watched, session: Watched | None, now_ms: int) -> Watched:
    if session is None or len(session) == 0:
        return history
    newest_ms = int(_times(history)[0]) if len(history) else -1
    return merge(_timed(session, newest_ms, now_ms), history)


def _timed(watched: Watched, newest_known_ms: int, now_ms: int) -> Watched:
    """Gives events without times, newest first, times a millisecond apart: the newest now, all newer than known."""
    if watched.event_times_ms is not None:
        return watched
    newest_ms = max(now_ms, newest_known_ms + len(watched))
    times = newest_ms - np.arange(len(watched), dtype=np.int64)
    return Watched(watched.movie_numbers, watched.ratings, times)


def _cut(history: Watched, window: int) -> Watched:
    if len(history) <= window:
        return history
    return Watched(history.movie_numbers[:window], history.ratings[:window], _times(history)[:window])


def _times(watched: Watched) -> NDArray[np.int64]:
    if watched.event_times_ms is None:
        raise ValueError("these events have no times")
    return watched.event_times_ms
