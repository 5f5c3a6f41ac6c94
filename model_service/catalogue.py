"""Holds the movies of one catalogue version by catalogue number. Knows no model, no RPC and no clock; never changes."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import repeat
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from two_tower.movie_columns import MovieColumns

_Kind = TypeVar("_Kind", bound=np.generic)
_NO_GENRES = frozenset({"(no genres listed)", "unknown"})


class CatalogueGapError(Exception):
    """The catalogue names a number without the numbers below it."""


@dataclass(frozen=True, slots=True)
class CatalogueMovie:
    """One movie as the catalogue gives it; `removed` once it was taken out."""

    number: int
    movie_id: str
    title: str = ""
    year: int | None = None
    genres: tuple[str, ...] = ()
    bags: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    removed: bool = False

    def has_features_of(self, other: "CatalogueMovie") -> bool:
        """Tells whether a movie tower would see no difference."""
        return self == replace(other, removed=self.removed)


@dataclass(frozen=True, slots=True)
class Catalogue:
    """M movies; position = catalogue number.

    Attributes:
        catalogue_id: Numbers mean something only together with it.
        version: Grows with every change.
        movies: [M]
        number_of: Catalogue number by external id, removed movies included.
        available: False for a removed movie. [M]
        years: NaN where unknown. float32 [M]
        genre_names: Spelling of each genre by its case-folded name.
        genre_masks: By case-folded name, True for the movies that have the genre. bool [M]
    """

    catalogue_id: str
    version: int
    movies: Sequence[CatalogueMovie]
    number_of: Mapping[str, int]
    available: NDArray[np.bool_]
    years: NDArray[np.float32]
    genre_names: Mapping[str, str]
    genre_masks: Mapping[str, NDArray[np.bool_]]

    @classmethod
    def empty(cls, catalogue_id: str, version: int = 0) -> "Catalogue":
        """Returns a catalogue without movies."""
        return cls(catalogue_id, version, (), {}, np.zeros(0, np.bool_), np.zeros(0, np.float32), {}, {})

    def __len__(self) -> int:
        return len(self.movies)

    def with_changes(self, changes: Iterable[CatalogueMovie], version: int) -> "Catalogue":
        """Returns the catalogue with some movies new or changed.

        Raises:
            CatalogueGapError: A new number would leave a gap.
        """
        changed = {movie.number: movie for movie in changes}
        size = max(len(self), 1 + max(changed, default=-1))
        missing = [number for number in range(len(self), size) if number not in changed]
        if missing:
            raise CatalogueGapError(f"the catalogue names number {size - 1} and lacks {missing[0]}")
        movies = [*self.movies, *(changed[number] for number in range(len(self), size))]
        number_of = dict(self.number_of)
        available, years = _grown(self.available, size, False), _grown(self.years, size, np.nan)
        masks = {name: _grown(mask, size, False) for name, mask in self.genre_masks.items()}
        names = dict(self.genre_names)
        for number, movie in changed.items():
            for genre in movies[number].genres:
                if genre.casefold() in masks:
                    masks[genre.casefold()][number] = False
            movies[number] = movie
            number_of[movie.movie_id] = number
            available[number] = not movie.removed
            years[number] = np.nan if movie.year is None else movie.year
            for genre in movie.genres:
                key = genre.casefold()
                names.setdefault(key, genre)
                masks.setdefault(key, np.zeros(size, np.bool_))[number] = True
        return Catalogue(self.catalogue_id, version, movies, number_of, available, years, names, masks)

    def numbers_of(self, movie_ids: Sequence[str]) -> NDArray[np.int64]:
        """Returns the catalogue number of each movie, -1 of one that the catalogue lacks."""
        return np.fromiter(map(self.number_of.get, movie_ids, repeat(-1)), np.int64, len(movie_ids))

    def genres(self) -> list[str]:
        """Returns the genres that an available movie has, sorted."""
        return sorted(self.genre_names[key] for key, mask in self.genre_masks.items() if (mask & self.available).any())

    def columns(self) -> MovieColumns:
        """Returns the movies as a movie tower takes them."""
        bag_names = sorted({name for movie in self.movies for name in movie.bags})
        return MovieColumns(
            [movie.movie_id for movie in self.movies],
            [movie.title for movie in self.movies],
            self.years,
            [tuple(genre for genre in movie.genres if genre not in _NO_GENRES) for movie in self.movies],
            {name: [movie.bags.get(name, ()) for movie in self.movies] for name in bag_names},
            self.available,
        )

    def has_features_of(self, other: "Catalogue") -> bool:
        """Tells whether a movie tower would see no difference."""
        return (
            self.catalogue_id == other.catalogue_id
            and len(self) == len(other)
            and all(
                ours is theirs or ours.has_features_of(theirs)
                for ours, theirs in zip(self.movies, other.movies, strict=True)
            )
        )


def _grown(values: NDArray[_Kind], size: int, fill: object) -> NDArray[_Kind]:
    grown = np.full(size, fill, values.dtype)
    grown[: len(values)] = values
    return grown
