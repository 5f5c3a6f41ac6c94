"""Holds what is known of many users, column by column: profiles and histories. Knows no embedding row and no model."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Profiles:
    """B user profiles; every field of a user may be missing.

    Attributes:
        genders: As the data writes them, "M" or "F" in MovieLens; None if unknown.
        ages: Age in years (ML-1M: the start of the age band), NaN if unknown. [B]
        occupations: Occupation names; None if unknown.
    """

    genders: Sequence[str | None]
    ages: NDArray[np.float32]
    occupations: Sequence[str | None]

    def __len__(self) -> int:
        return len(self.genders)

    def take(self, rows: NDArray[np.integer]) -> "Profiles":
        """Returns some of the users, in the order of `rows`."""
        return Profiles([self.genders[row] for row in rows], self.ages[rows], [self.occupations[row] for row in rows])

    @classmethod
    def unknown(cls, num_users: int) -> "Profiles":
        """Returns profiles of which nothing is known."""
        return cls([None] * num_users, np.full(num_users, np.nan, np.float32), [None] * num_users)


@dataclass(frozen=True, slots=True)
class Histories:
    """B watch histories, each newest first by (event time, catalogue number), laid end to end (E entries in all).

    Attributes:
        offsets: History b is entries offsets[b]:offsets[b + 1]. int64 [B + 1]
        movie_numbers: Catalogue numbers: positions in the `MovieColumns` that were embedded. int32 [E]
        ratings: Stars, NaN where the movie was watched and not rated. float32 [E]
        event_times_ms: Epoch milliseconds; 0 in data without times. int64 [E]
        complete: True where the entries are all that the user ever watched, nothing trimmed. bool [B]
    """

    offsets: NDArray[np.int64]
    movie_numbers: NDArray[np.int32]
    ratings: NDArray[np.float32]
    event_times_ms: NDArray[np.int64]
    complete: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def take(self, rows: NDArray[np.integer]) -> "Histories":
        """Returns some of the histories, in the order of `rows`."""
        lengths = np.diff(self.offsets)[rows]
        offsets = np.concatenate(([0], np.cumsum(lengths))).astype(np.int64)
        entries = np.arange(offsets[-1]) + np.repeat(self.offsets[:-1][rows] - offsets[:-1], lengths)
        return Histories(
            offsets,
            self.movie_numbers[entries],
            self.ratings[entries],
            self.event_times_ms[entries],
            self.complete[rows],
        )

    @classmethod
    def empty(cls, num_users: int) -> "Histories":
        """Returns the histories of users who have watched nothing."""
        return cls(
            np.zeros(num_users + 1, np.int64),
            np.zeros(0, np.int32),
            np.zeros(0, np.float32),
            np.zeros(0, np.int64),
            np.ones(num_users, np.bool_),
        )


@dataclass(frozen=True, slots=True)
class UserColumns:
    """B users as a user tower sees them.

    Attributes:
        user_ids: External ids; None for an anonymous user and for one whose trained vector must not be used
            (deleted since the checkpoint's data was taken).
        profiles: Their profiles.
        histories: Their histories.
    """

    user_ids: Sequence[str | None]
    profiles: Profiles
    histories: Histories

    def __len__(self) -> int:
        return len(self.user_ids)

    def take(self, rows: NDArray[np.integer]) -> "UserColumns":
        """Returns some of the users, in the order of `rows`; a row may be taken repeatedly."""
        user_ids = [self.user_ids[row] for row in rows]
        return UserColumns(user_ids, self.profiles.take(rows), self.histories.take(rows))
