"""Holds users as the feature store would: one entry per movie, newest first. Knows frames; knows no model and no store.

Of two events about a movie the newest counts, with the rating of the newest that has one; entries are ordered by (event
time, catalogue number). So a model is told here what it is told when it serves.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from two_tower.errors import FrameError
from two_tower.frames import Frame, numbers, profiles, required_ids, times_ms
from two_tower.user_columns import Histories, Profiles, UserColumns

_SHOWN = 3


@dataclass(frozen=True, slots=True)
class People:
    """U users.

    Attributes:
        row_of: Row of each user id.
        profiles: [U]
        histories: All that each watched. [U]
    """

    row_of: Mapping[str, int]
    profiles: Profiles
    histories: Histories

    @classmethod
    def read(cls, events: Frame | None, users: Frame | None, number_of: Mapping[str, int]) -> "People":
        """Reads what was watched and who watched it.

        Args:
            events: user_id, movie_id, rating, timestamp; None if nobody watched anything.
            users: user_id, gender, age, occupation; None if no profile is known.
            number_of: Catalogue number of each movie id.

        Raises:
            FrameError: A frame cannot be read, names a user twice, or a movie that the catalogue lacks.
        """
        listed = [] if users is None else required_ids(users, "user_id", "users")
        if len(set(listed)) < len(listed):
            raise FrameError(f"users: {len(listed) - len(set(listed))} rows repeat a user_id")
        watchers = [] if events is None else required_ids(events, "user_id", "histories")
        row_of = {user_id: row for row, user_id in enumerate(dict.fromkeys([*listed, *watchers]))}
        known = Profiles.unknown(0) if users is None else profiles(users, len(listed))
        unknown = Profiles.unknown(len(row_of) - len(listed))
        return cls(
            row_of,
            Profiles(
                [*known.genders, *unknown.genders],
                np.concatenate([known.ages, unknown.ages]),
                [*known.occupations, *unknown.occupations],
            ),
            Histories.empty(len(row_of)) if events is None else _histories(events, watchers, row_of, number_of),
        )

    def columns(self, user_ids: Sequence[str | None], window: int, trained: NDArray[np.bool_]) -> UserColumns:
        """Returns users as a user tower sees them.

        Args:
            user_ids: Whom; None and ids that nobody knows are answered for too.
            window: Newest entries that the model sees.
            trained: Whether the checkpoint holds a trained vector of each: of such a user who is not among these, the
                vector is all there is. [B]
        """
        rows = np.array([-1 if user_id is None else self.row_of.get(user_id, -1) for user_id in user_ids], np.int64)
        found = rows >= 0
        lengths = np.zeros(len(rows), np.int64)
        lengths[found] = np.diff(self.histories.offsets)[rows[found]]
        kept = np.minimum(lengths, window)
        offsets = np.concatenate(([0], np.cumsum(kept))).astype(np.int64)
        starts = np.where(found, self.histories.offsets[:-1][rows] if len(self.row_of) else 0, 0)
        entries = np.arange(offsets[-1]) + np.repeat(starts - offsets[:-1], kept)
        ages = np.full(len(rows), np.nan, np.float32)
        ages[found] = self.profiles.ages[rows[found]]
        return UserColumns(
            list(user_ids),
            Profiles(
                [self.profiles.genders[row] if row >= 0 else None for row in rows],
                ages,
                [self.profiles.occupations[row] if row >= 0 else None for row in rows],
            ),
            Histories(
                offsets,
                self.histories.movie_numbers[entries],
                self.histories.ratings[entries],
                self.histories.event_times_ms[entries],
                np.where(found, lengths <= window, ~trained),
            ),
        )

    def seen(self, user_id: str | None) -> NDArray[np.int64]:
        """Returns the catalogue numbers of all that a user ever watched."""
        row = -1 if user_id is None else self.row_of.get(user_id, -1)
        if row < 0:
            return np.zeros(0, np.int64)
        some = slice(int(self.histories.offsets[row]), int(self.histories.offsets[row + 1]))
        return self.histories.movie_numbers[some].astype(np.int64)


def _histories(
    events: Frame, watchers: Sequence[str], row_of: Mapping[str, int], number_of: Mapping[str, int]
) -> Histories:
    movie_ids = required_ids(events, "movie_id", "histories")
    missing = sorted({movie_id for movie_id in movie_ids if movie_id not in number_of})
    if missing:
        shown = ", ".join(missing[:_SHOWN]) + (", ..." if len(missing) > _SHOWN else "")
        raise FrameError(f"histories name {len(missing)} movies that movies lack: {shown}")
    rows = np.array([row_of[user_id] for user_id in watchers], np.int64)
    movies = np.array([number_of[movie_id] for movie_id in movie_ids], np.int64)
    ratings = numbers(events, "rating", "histories", len(rows)).astype(np.float32)
    times = times_ms(events, "histories", len(rows))
    # Per user and movie the newest event first: its time counts, with the first rating that there is.
    order = np.lexsort((-times, movies, rows))
    rows, movies, ratings, times = rows[order], movies[order], ratings[order], times[order]
    is_first = np.append(True, (rows[1:] != rows[:-1]) | (movies[1:] != movies[:-1]))[: len(rows)]
    starts = np.flatnonzero(is_first)
    if len(rows):
        places = np.where(np.isnan(ratings), len(rows), np.arange(len(rows)))
        ratings = np.append(ratings, np.float32(np.nan))[np.minimum.reduceat(places, starts)]
    rows, movies, times = rows[starts], movies[starts], times[starts]
    newest_first = np.lexsort((-movies, -times, rows))
    counts = np.bincount(rows, minlength=len(row_of))
    return Histories(
        np.concatenate(([0], np.cumsum(counts))).astype(np.int64),
        movies[newest_first].astype(np.int32),
        ratings[newest_first].astype(np.float32),
        times[newest_first],
        np.ones(len(row_of), np.bool_),
    )
