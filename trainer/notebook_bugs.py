"""Puts back bugs of the published notebooks that are bugs of their data, for whoever wants the reported figures.

Each takes data as it is and returns it as the notebook saw it. Knows ids, genres and rows; knows no model.
"""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from trainer.dataset import Dataset, Interactions


def with_own_maps(
    data: Dataset, train: Interactions, validation: Interactions, rng: np.random.Generator
) -> tuple[Dataset, Interactions]:
    """Returns validation rows, and movies, as a model sees them whose validation set numbered everything anew.

    Both parts were shuffled, and each gave its users, movies and genres numbers in the order in which they came. So the
    model was asked about whoever happened to have the same number in training; the genres, which it was told beside the
    movie, were those of the right movie under other names. Rows whose number nobody has in training are left out.

    Args:
        data: The data set; models are asked with the movies of the one that is returned.
        train: The rows that the model was trained on.
        validation: The rows to ask it about.
        rng: Draws both orders and that of the genres, which came from a set.
    """
    users = _stand_ins(train.user_rows, validation.user_rows, len(data.user_ids), rng)
    movies = _stand_ins(train.movie_rows, validation.movie_rows, len(data.movies), rng)
    names = sorted({genre for genres in data.movies.genres for genre in genres})
    other_name = dict(zip(names, rng.permutation(np.array(names, object)), strict=True))
    genres = list(data.movies.genres)
    for movie in np.unique(validation.movie_rows):
        if movies[movie] >= 0:
            genres[movies[movie]] = tuple(str(other_name[genre]) for genre in data.movies.genres[movie])
    asked = replace(validation, user_rows=users[validation.user_rows], movie_rows=movies[validation.movie_rows])
    found = (asked.user_rows >= 0) & (asked.movie_rows >= 0)
    return replace(data, movies=replace(data.movies, genres=genres)), asked.take(found)


def with_misaligned_genres(data: Dataset) -> Dataset:
    """Returns the data with genres joined by row label: movie "7" has those of the movie in row 7, counted from 0.

    A movie whose id is no such number has none.
    """
    movies = data.movies
    rows = [int(movie_id) if movie_id.isascii() and movie_id.isdigit() else -1 for movie_id in movies.movie_ids]
    genres = [movies.genres[row] if 0 <= row < len(movies) else () for row in rows]
    return replace(data, movies=replace(movies, genres=genres))


def _stand_ins(
    trained: NDArray[np.int32], asked: NDArray[np.int32], num_rows: int, rng: np.random.Generator
) -> NDArray[np.int32]:
    """Returns for each row the one that has its number in training, -1 where there is none. int32 [num_rows]."""
    in_training, in_validation = (_in_order_of_appearance(rng.permutation(rows)) for rows in (trained, asked))
    both = min(len(in_training), len(in_validation))
    stand_ins = np.full(num_rows, -1, np.int32)
    stand_ins[in_validation[:both]] = in_training[:both]
    return stand_ins


def _in_order_of_appearance(rows: NDArray[np.int32]) -> NDArray[np.int32]:
    values, first = np.unique(rows, return_index=True)
    ordered: NDArray[np.int32] = values[np.argsort(first)]
    return ordered
