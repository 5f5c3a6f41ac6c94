"""Makes up the movies: genres, years, titles, how popular and how good they are. Knows no user."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trainer.synthesis.known_tastes import COMPANIONS, GENRE_SHARES, GENRES
from trainer.synthesis.movie_titles import make_titles
from two_tower.movie_columns import MovieColumns

FIRST_YEAR, LAST_YEAR = 1930, 2013
ERA_STARTS = (1970, 1990)
"""Movies before, between and after these years are chosen by different people."""
NUM_ERAS = len(ERA_STARTS) + 1
POPULARITY_EXPONENT = 1.3
"""A movie's popularity falls with this power of its rank: a few movies take most views, as in MovieLens."""
POPULARITY_OFFSET = 25
"""Keeps the first movies from taking everything."""
FOLLOWER_SPREAD = 0.5
"""How much more or less popular a movie's follower may be, in logarithms: those who follow do not reach the tail."""
QUALITY_SD = 0.4
"""Stars by which movies differ for everyone."""
HIDDEN_DIMS = 4
"""Directions of taste that no genre and no demographic gives away."""
SEQUEL_SHARE = 0.08
SEQUEL_YEARS = 3


@dataclass(frozen=True, slots=True)
class Catalogue:
    """M movies; those of one shelf (first genre and era) lie together in `shelf_order`.

    Attributes:
        movies: As the readers give them; ids are "1", "2", and so on.
        genre_weights: A movie's genres, each row summing to 1. float32 [M, G]
        quality: Stars that the movie has for everyone. float32 [M]
        hidden: Movie side of the hidden tastes. float32 [M, HIDDEN_DIMS]
        popularity: Relative number of views. float64 [M]
        shelf_order: Movies shelf by shelf; a movie's follower is the next on its shelf. int32 [M]
        shelf_starts: Where each shelf begins in `shelf_order`. int64 [G * NUM_ERAS + 1]
        followers: The movie that many watch next. int32 [M]
    """

    movies: MovieColumns
    genre_weights: NDArray[np.float32]
    quality: NDArray[np.float32]
    hidden: NDArray[np.float32]
    popularity: NDArray[np.float64]
    shelf_order: NDArray[np.int32]
    shelf_starts: NDArray[np.int64]
    followers: NDArray[np.int32]


def make_catalogue(num_movies: int, rng: np.random.Generator) -> Catalogue:
    """Makes up `num_movies` movies."""
    first = rng.choice(len(GENRES), num_movies, p=_shares()).astype(np.int32)  # [M]
    # Recent movies are more numerous, as in every catalogue.
    years = LAST_YEAR - np.minimum(rng.exponential(18, num_movies), LAST_YEAR - FIRST_YEAR).astype(np.int32)
    ranks = rng.permutation(num_movies)
    popularity = np.asarray((ranks + POPULARITY_OFFSET) ** -POPULARITY_EXPONENT, np.float64)
    standing = (np.log(popularity) - np.log(popularity).mean()) / max(np.log(popularity).std(), 1e-9)
    quality = QUALITY_SD * (0.4 * standing + 0.9 * rng.standard_normal(num_movies))
    hidden = rng.standard_normal((num_movies, HIDDEN_DIMS)).astype(np.float32)
    genres = _genres(first, rng)
    titles = make_titles([GENRES[genre] for genre in first.tolist()], rng)

    era = np.searchsorted(ERA_STARTS, years, side="right")
    shelf = first * NUM_ERAS + era  # [M]
    prominence = -np.log(popularity) + FOLLOWER_SPREAD * rng.standard_normal(num_movies)
    shelf_order = np.lexsort((prominence, shelf)).astype(np.int32)
    shelf_starts = np.searchsorted(shelf[shelf_order], np.arange(len(GENRES) * NUM_ERAS + 1))
    followers = _followers(shelf_order, shelf_starts)
    _make_sequels(followers, titles, years, genres, hidden, rng)
    return Catalogue(
        movies=MovieColumns(
            movie_ids=[str(row + 1) for row in range(num_movies)],
            titles=titles,
            years=years.astype(np.float32),
            genres=[tuple(GENRES[genre] for genre in sorted(those)) for those in genres],
        ),
        genre_weights=_weights(genres),
        quality=quality.astype(np.float32),
        hidden=hidden,
        popularity=popularity,
        shelf_order=shelf_order,
        shelf_starts=shelf_starts,
        followers=followers,
    )


def _shares() -> NDArray[np.float64]:
    shares = np.asarray([GENRE_SHARES[genre] for genre in GENRES])
    return np.asarray(shares / shares.sum())


def _genres(first: NDArray[np.int32], rng: np.random.Generator) -> list[list[int]]:
    more = rng.choice(3, len(first), p=[0.45, 0.4, 0.15]).tolist()
    draws = rng.random((len(first), max(len(those) for those in COMPANIONS.values())))
    genres = []
    for genre, count, draw in zip(first.tolist(), more, draws, strict=True):
        companions = COMPANIONS[GENRES[genre]]
        chosen = np.argsort(draw[: len(companions)])[:count].tolist()
        genres.append([genre, *(GENRES.index(companions[place]) for place in chosen)])
    return genres


def _weights(genres: list[list[int]]) -> NDArray[np.float32]:
    weights = np.zeros((len(genres), len(GENRES)), np.float32)  # [M, G]
    for row, those in enumerate(genres):
        weights[row, those] = 1 / len(those)
    return weights


def _followers(shelf_order: NDArray[np.int32], shelf_starts: NDArray[np.int64]) -> NDArray[np.int32]:
    followers = np.empty(len(shelf_order), np.int32)
    following = np.arange(1, len(shelf_order) + 1)
    filled = np.flatnonzero(np.diff(shelf_starts))
    following[shelf_starts[filled + 1] - 1] = shelf_starts[filled]
    followers[shelf_order] = shelf_order[following]
    return followers


def _make_sequels(
    followers: NDArray[np.int32],
    titles: list[str],
    years: NDArray[np.int32],
    genres: list[list[int]],
    hidden: NDArray[np.float32],
    rng: np.random.Generator,
) -> None:
    """Turns the followers of some movies into their sequels: same name, same genres, same hidden taste, later year."""
    in_series: set[int] = set()
    for movie in np.flatnonzero(rng.random(len(titles)) < SEQUEL_SHARE).tolist():
        sequel = int(followers[movie])
        later = int(years[movie]) + SEQUEL_YEARS
        era_left = np.searchsorted(ERA_STARTS, later, side="right") != np.searchsorted(
            ERA_STARTS, years[movie], side="right"
        )
        if sequel == movie or later > LAST_YEAR or era_left or in_series & {movie, sequel}:
            continue
        in_series |= {movie, sequel}
        titles[sequel] = f"{titles[movie]} II"
        years[sequel] = later
        genres[sequel] = list(genres[movie])
        hidden[sequel] = hidden[movie]
