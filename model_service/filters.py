"""Says exactly which movies may be answered. Knows genres, years and catalogue numbers; knows no score and no RPC."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from model_service.catalogue import Catalogue
from two_tower.permitted import Permitted

_FILTERS_REMEMBERED = 64
"""At 100,000 movies some 50 MB at worst."""


@dataclass(frozen=True, slots=True)
class MovieFilter:
    """Conditions that must all hold; one that is not set always holds.

    Attributes:
        genres_any: The movie has one of these; case-folded, as all genres here.
        genres_all: The movie has all of these.
        genres_none: The movie has none of these.
        year_min: First year of release; a movie without a year does not pass.
        year_max: Last year of release; a movie without a year does not pass.
        allow: Catalogue numbers that may be answered; None: all.
        exclude: External ids that may not; ids that the catalogue lacks do no harm.
    """

    genres_any: tuple[str, ...] = ()
    genres_all: tuple[str, ...] = ()
    genres_none: tuple[str, ...] = ()
    year_min: int | None = None
    year_max: int | None = None
    allow: tuple[int, ...] | None = None
    exclude: tuple[str, ...] = ()

    def mask(self, catalogue: Catalogue) -> NDArray[np.bool_]:
        """Returns True for the available movies that pass. bool [M]."""
        passes = catalogue.available.copy()  # [M]
        if self.genres_any:
            passes &= np.logical_or.reduce([_having(catalogue, genre) for genre in self.genres_any])
        for genre in self.genres_all:
            passes &= _having(catalogue, genre)
        for genre in self.genres_none:
            passes &= ~_having(catalogue, genre)
        # A comparison with NaN is False, so a movie without a year does not pass.
        if self.year_min is not None:
            passes &= catalogue.years >= self.year_min
        if self.year_max is not None:
            passes &= catalogue.years <= self.year_max
        if self.allow is not None:
            allowed = np.zeros(len(catalogue), np.bool_)
            allowed[np.asarray(self.allow, np.int64)] = True
            passes &= allowed
        excluded = [catalogue.number_of[movie_id] for movie_id in self.exclude if movie_id in catalogue.number_of]
        passes[np.asarray(excluded, np.int64)] = False
        return passes


class BarredMovies:
    """Remembers what the filters of late let nobody have. Never changes what a filter says."""

    def __init__(self) -> None:
        self._catalogue: Catalogue | None = None
        self._numbers: dict[MovieFilter, NDArray[np.int64]] = {}

    def numbers(self, movie_filter: MovieFilter, catalogue: Catalogue) -> NDArray[np.int64]:
        """Returns the catalogue numbers that a filter bars, ascending. [x]."""
        if catalogue is not self._catalogue:
            self._catalogue, self._numbers = catalogue, {}
        barred = self._numbers.get(movie_filter)
        if barred is None:
            barred = np.flatnonzero(~movie_filter.mask(catalogue))
            while len(self._numbers) >= _FILTERS_REMEMBERED:
                del self._numbers[next(iter(self._numbers))]
            self._numbers[movie_filter] = barred
        return barred


def permit(filters: Sequence[MovieFilter], excluded: Sequence[NDArray[np.int64]], catalogue: Catalogue) -> Permitted:
    """Applies one filter and one array of excluded catalogue numbers per row; equal filters are applied once."""
    distinct = list(dict.fromkeys(filters))
    position = {movie_filter: index for index, movie_filter in enumerate(distinct)}
    rows = np.repeat(np.arange(len(excluded), dtype=np.int64), [len(numbers) for numbers in excluded])
    numbers = np.concatenate([np.zeros(0, np.int64), *excluded])
    known = numbers < len(catalogue)
    return Permitted(
        np.stack([movie_filter.mask(catalogue) for movie_filter in distinct]),
        np.array([position[movie_filter] for movie_filter in filters], np.int64),
        rows[known],
        numbers[known],
    )


def _having(catalogue: Catalogue, genre: str) -> NDArray[np.bool_]:
    mask = catalogue.genre_masks.get(genre)
    return np.zeros(len(catalogue), np.bool_) if mask is None else mask
