"""Holds what is known of many movies, column by column. Knows no embedding row, no model and no storage."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class MovieColumns:
    """M movies of one catalogue; position in the columns is the movie's catalogue number.

    Attributes:
        movie_ids: External ids, all different.
        titles: Titles without the trailing year; empty if unknown.
        years: Year of release, NaN if unknown. [M]
        genres: Genre names; "(no genres listed)" and "unknown" mean none and never occur here.
        bags: Further bag-of-category columns by name, for example "cast"; each holds M entries.
        available: False for a movie that the catalogue has removed or a number that it never gave. [M]
    """

    movie_ids: Sequence[str]
    titles: Sequence[str]
    years: NDArray[np.float32]
    genres: Sequence[tuple[str, ...]]
    bags: Mapping[str, Sequence[tuple[str, ...]]] = field(default_factory=dict)
    available: NDArray[np.bool_] | None = None

    def __len__(self) -> int:
        return len(self.movie_ids)
