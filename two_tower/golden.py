"""Proves that a model answers as it did when its checkpoint was written. Knows synthetic users; knows no file.

The users are made up: a profile nobody has to have, a history nobody has to have watched. So a checkpoint carries no
person's history, and loading one needs no data.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from two_tower.errors import FAILURES_OF_A_MODEL, SelfCheckError
from two_tower.movie_columns import MovieColumns
from two_tower.scoring import rank_scores, rate_all
from two_tower.serving import Model
from two_tower.user_columns import Histories, Profiles, UserColumns

RATING_TOLERANCE = 2e-3
"""Stars; another processor sums in another order, and four digits is what a rating is ever shown with."""

SCORE_TOLERANCE = 2e-3
"""Times the largest score of the user."""

_NUM_KNOWN_MOVIES = 12


@dataclass(frozen=True, slots=True)
class GoldenMovie:
    """A movie as the catalogue gives it."""

    movie_id: str
    title: str
    year: float | None
    genres: tuple[str, ...]
    bags: dict[str, tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class GoldenEvent:
    """A movie of the golden catalogue, watched; `movie` is its position there."""

    movie: int
    rating: float | None
    event_time_ms: int


@dataclass(frozen=True, slots=True)
class GoldenUser:
    """A synthetic user and what he was answered.

    Attributes:
        user_id: None for a stranger; else an id that has a trained vector.
        gender: None if unknown.
        age: None if unknown.
        occupation: None if unknown.
        history: Newest first.
        complete: Whether the history is all that he ever watched.
        ratings: Expected, clipped, one for each golden movie; empty if the data has no ratings.
        scores: Expected ranking score for each golden movie.
    """

    user_id: str | None
    gender: str | None
    age: float | None
    occupation: str | None
    history: tuple[GoldenEvent, ...]
    complete: bool
    ratings: tuple[float, ...]
    scores: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Golden:
    """A small catalogue and synthetic users, with the answers that they got."""

    movies: tuple[GoldenMovie, ...]
    users: tuple[GoldenUser, ...]


def make(model: Model, movies: MovieColumns, profiles: Profiles, trained_user_id: str | None, until_ms: int) -> Golden:
    """Asks a model about synthetic users and keeps the answers.

    Args:
        model: The model, as it will be after loading.
        movies: The catalogue, of which a few movies, spread evenly, are kept; one that no checkpoint knows is added.
        profiles: Gives the genders, ages and occupations that synthetic users may have, by value, never by person.
        trained_user_id: A user that the model may hold a trained vector for.
        until_ms: Newest event time trained on.
    """
    golden_movies = _pick_movies(movies)
    users = _invent_users(golden_movies, profiles, trained_user_id, until_ms, model)
    ratings, scores = _answer(model, golden_movies, users)
    return Golden(
        golden_movies,
        tuple(
            GoldenUser(
                user.user_id,
                user.gender,
                user.age,
                user.occupation,
                user.history,
                user.complete,
                tuple(float(rating) for rating in ratings[b]) if ratings is not None else (),
                tuple(float(score) for score in scores[b]),
            )
            for b, user in enumerate(users)
        ),
    )


def check(model: Model, golden: Golden) -> None:
    """Asks the model about the golden users again.

    Raises:
        SelfCheckError: An answer differs by more than rounding, which the message names with the difference, or there
            is none.
    """
    num_movies = len(golden.movies)
    for user in golden.users:
        if len(user.scores) != num_movies or len(user.ratings) not in (0, num_movies):
            raise SelfCheckError(f"a golden user has not one expected answer for each of the {num_movies} movies")
        if any(not 0 <= event.movie < num_movies for event in user.history):
            raise SelfCheckError("a golden user has watched a movie that is not among the golden movies")
    try:
        ratings, scores = _answer(model, golden.movies, golden.users)
    except FAILURES_OF_A_MODEL as error:
        # Tables that point at each other pass the loading whatever they point at.
        raise SelfCheckError(f"the model cannot answer its golden users: {error!r}") from error
    for b, user in enumerate(golden.users):
        if ratings is not None or user.ratings:
            found = ratings[b] if ratings is not None else np.full(num_movies, np.nan, np.float32)
            _compare("rating", b, golden, user.ratings or [np.nan] * num_movies, found, RATING_TOLERANCE)
        reach = max(1.0, max((abs(score) for score in user.scores), default=1.0))
        _compare("ranking score", b, golden, user.scores, scores[b], SCORE_TOLERANCE * reach)


def _compare(
    what: str, user: int, golden: Golden, expected: Sequence[float], found: NDArray[np.float32], tolerance: float
) -> None:
    difference = np.abs(np.asarray(expected, np.float64) - found)
    # Written so that a NaN on either side counts as a difference.
    if not np.all(difference <= tolerance):
        worst = int(np.argmax(np.where(np.isnan(difference), np.inf, difference)))
        raise SelfCheckError(
            f"golden user {user} gets {what} {found[worst]:.6f} for movie {golden.movies[worst].movie_id!r}; "
            f"{expected[worst]:.6f} was written with the checkpoint (at most {tolerance:g} may differ)"
        )


def _answer(
    model: Model, movies: Sequence[GoldenMovie], users: Sequence[GoldenUser]
) -> tuple[NDArray[np.float32] | None, NDArray[np.float32]]:
    embedded = model.embed_movies(_movie_columns(movies))
    embeddings = model.embed_users(_user_columns(users), embedded)
    ratings = rate_all(model, embeddings, embedded) if model.rating_scale is not None else None
    return ratings, rank_scores(model, embeddings, embedded).cpu().numpy()


def _pick_movies(movies: MovieColumns) -> tuple[GoldenMovie, ...]:
    numbers = np.unique(np.linspace(0, len(movies) - 1, min(_NUM_KNOWN_MOVIES, len(movies))).astype(int))
    picked = [
        GoldenMovie(
            movies.movie_ids[number],
            movies.titles[number],
            None if np.isnan(movies.years[number]) else float(movies.years[number]),
            tuple(movies.genres[number]),
            {name: tuple(bag[number]) for name, bag in movies.bags.items()},
        )
        for number in numbers
    ]
    unknown_id = "a movie that nobody has seen"
    while unknown_id in {movie.movie_id for movie in picked}:
        unknown_id += " yet"
    genres = next((movie.genres for movie in picked if movie.genres), ())
    year = next((movie.year for movie in picked if movie.year is not None), None)
    return (*picked, GoldenMovie(unknown_id, "Unseen", year, genres, dict.fromkeys(movies.bags, ())))


def _invent_users(
    movies: Sequence[GoldenMovie],
    profiles: Profiles,
    trained_user_id: str | None,
    until_ms: int,
    model: Model,
) -> list[GoldenUser]:
    gender = min((value for value in profiles.genders if value is not None), default=None)
    occupation = max((value for value in profiles.occupations if value is not None), default=None)
    known_ages = profiles.ages[~np.isnan(profiles.ages)]
    age = float(np.median(known_ages)) if known_ages.size else None
    scale = model.rating_scale
    stars = [None] if scale is None else [scale.high, scale.low, None]

    def history(num_events: int, newest_ms: int) -> tuple[GoldenEvent, ...]:
        timed = until_ms > 0
        return tuple(
            GoldenEvent(n, stars[n % len(stars)], newest_ms - 60_000 * n if timed else 0) for n in range(num_events)
        )

    num_movies = len(movies)
    return [
        GoldenUser(None, None, None, None, (), True, (), ()),
        GoldenUser(None, gender, age, occupation, (), True, (), ()),
        GoldenUser(None, None, None, None, history(min(3, num_movies), until_ms), True, (), ()),
        GoldenUser(None, gender, age, occupation, history(num_movies, until_ms), False, (), ()),
        GoldenUser(trained_user_id, gender, age, occupation, history(2, until_ms + 3_600_000), False, (), ()),
    ]


def _movie_columns(movies: Sequence[GoldenMovie]) -> MovieColumns:
    names = list(movies[0].bags) if movies else []
    return MovieColumns(
        [movie.movie_id for movie in movies],
        [movie.title for movie in movies],
        np.array([np.nan if movie.year is None else movie.year for movie in movies], np.float32),
        [movie.genres for movie in movies],
        {name: [movie.bags.get(name, ()) for movie in movies] for name in names},
    )


def _user_columns(users: Sequence[GoldenUser]) -> UserColumns:
    events = [event for user in users for event in user.history]
    profiles = Profiles(
        [user.gender for user in users],
        np.array([np.nan if user.age is None else user.age for user in users], np.float32),
        [user.occupation for user in users],
    )
    histories = Histories(
        np.concatenate(([0], np.cumsum([len(user.history) for user in users]))).astype(np.int64),
        np.array([event.movie for event in events], np.int32),
        np.array([np.nan if event.rating is None else event.rating for event in events], np.float32),
        np.array([event.event_time_ms for event in events], np.int64),
        np.array([user.complete for user in users], np.bool_),
    )
    return UserColumns([user.user_id for user in users], profiles, histories)
