"""Holds one data set in memory: users, movies and what users made of movies. Knows no file format, split or model."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from two_tower.movie_columns import MovieColumns
from two_tower.serving import RatingScale
from two_tower.user_columns import Profiles


@dataclass(frozen=True, slots=True)
class Interactions:
    """n rows "this user watched (and rated) this movie", in file order.

    Attributes:
        user_rows: Position of the user in the data set's users. int32 [n]
        movie_rows: Position of the movie in the data set's movies; becomes its catalogue number. int32 [n]
        ratings: Stars, NaN where there is none. float32 [n]
        event_times_ms: Epoch milliseconds, 0 throughout if the data has no times. int64 [n]
    """

    user_rows: NDArray[np.int32]
    movie_rows: NDArray[np.int32]
    ratings: NDArray[np.float32]
    event_times_ms: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.user_rows)

    def take(self, rows: NDArray[np.integer] | NDArray[np.bool_]) -> "Interactions":
        """Returns the given rows, by position or by mask."""
        return Interactions(self.user_rows[rows], self.movie_rows[rows], self.ratings[rows], self.event_times_ms[rows])


@dataclass(frozen=True, slots=True)
class Dataset:
    """A data set as the readers give it: ids are strings, rows are dense, at most one interaction per (user, movie).

    Attributes:
        name: What it is called in reports, for example "ml-100k".
        user_ids: External user ids; position = user row. All users of the files, also those without interactions.
        profiles: Demographics by user row; unknown throughout if the data has none.
        zips: Zip or postal codes by user row, None where unknown.
        movies: Movie features by movie row. All movies of the files, also those that nobody watched.
        interactions: What users did.
        scale: The rating scale, None if the data has no ratings.
        has_times: Whether the data has timestamps. Without them histories have no order.
        notes: What the readers decided and skipped, one sentence each, for a person.
    """

    name: str
    user_ids: list[str]
    profiles: Profiles
    zips: list[str | None]
    movies: MovieColumns
    interactions: Interactions
    scale: RatingScale | None
    has_times: bool
    notes: list[str] = field(default_factory=list)
