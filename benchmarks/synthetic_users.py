"""Makes users with profiles and histories, block by block, as many as are asked for. Knows no store.

A block is made from its own number and the seed, so that users never lie in memory all at once, and any block can be
made again by whoever checks what arrived.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from marquee.v1 import user_pb2
from numpy.typing import NDArray

_OCCUPATIONS = ("artist", "doctor", "educator", "engineer", "librarian", "programmer", "retired", "student", "writer")
_FIRST_MS = 1_500_000_000_000
_SPAN_MS = 5 * 365 * 86_400_000


@dataclass(frozen=True, slots=True)
class UserBlock:
    """B users with E entries each.

    Attributes:
        user_ids: External ids. [B]
        profiles: All four fields. [B]
        movie_rows: Movies watched, all different for one user. int64 [B, E]
        ratings: Half stars from 0.5 to 5. float32 [B, E]
        event_times_ms: Epoch milliseconds, in no order. int64 [B, E]
    """

    user_ids: list[str]
    profiles: list[user_pb2.UserProfile]
    movie_rows: NDArray[np.int64]
    ratings: NDArray[np.float32]
    event_times_ms: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class SyntheticUsers:
    """Users of one shape.

    Attributes:
        num_users: How many there are.
        num_entries: Movies that each of them watched.
        num_movies: Of the catalogue.
        seed: All chance comes from it.
    """

    num_users: int
    num_entries: int
    num_movies: int
    seed: int = 0

    def blocks(self, size: int = 1000) -> Iterator[UserBlock]:
        """Yields all users, `size` at a time."""
        for number, start in enumerate(range(0, self.num_users, size)):
            yield self._block(number, start, min(size, self.num_users - start))

    def _block(self, number: int, start: int, size: int) -> UserBlock:
        rng = np.random.default_rng((self.seed, number))
        # One movie of each of E ranges that grow like squares: low numbers are popular, and none comes twice.
        bounds = np.arange(self.num_entries + 1) ** 2 * (self.num_movies / self.num_entries**2)
        bounds = np.maximum(np.floor(bounds).astype(np.int64), np.arange(self.num_entries + 1))
        movie_rows = rng.integers(bounds[:-1], bounds[1:], (size, self.num_entries))  # [B, E]
        profiles = [
            user_pb2.UserProfile(
                gender="F" if at % 2 else "M",
                age=age,
                occupation=_OCCUPATIONS[at % len(_OCCUPATIONS)],
                zip=f"{code:05d}",
            )
            for at, (age, code) in enumerate(
                zip(rng.integers(10, 90, size).tolist(), rng.integers(0, 100_000, size).tolist(), strict=True), start
            )
        ]
        return UserBlock(
            [f"user-{at:08d}" for at in range(start, start + size)],
            profiles,
            movie_rows,
            (rng.integers(1, 11, (size, self.num_entries)) / 2).astype(np.float32),
            _FIRST_MS + rng.integers(0, _SPAN_MS, (size, self.num_entries)),
        )
