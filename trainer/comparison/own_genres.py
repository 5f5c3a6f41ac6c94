"""Asks a notebook's model about rows whose genres had maps and padding of their own. Knows genres; knows no figure.

The validation set of one notebook built its own maps of users, movies and genres, and filled lists of genres up to the
longest of its own rows with the number of a real genre. Users and movies are `views.OWN_MAPS`; this is the rest.
"""

from dataclasses import replace

import numpy as np

from trainer.dataset import Dataset, Interactions
from two_tower.serving import Model

OWN_GENRES = "own maps and genres"
"""The view that is asked so, beside `views.OWN_MAPS`."""


def with_own_genres(
    model: Model, data: Dataset, held_out: Interactions, judged: Interactions, seed: int
) -> tuple[Model, Dataset]:
    """Returns the model as it fills lists up, and the movies as it was told of them.

    Args:
        model: A model; one that was trained on padded lists says so in its config.
        data: The data set.
        held_out: The held-out rows.
        judged: The same rows with the user and the movie that each was taken for.
        seed: Draws the order of the genres, which came from a set.
    """
    names = sorted({genre for genres in data.movies.genres for genre in genres})
    drawn = np.random.default_rng([seed, 0x6E7E]).permutation(len(names))
    other = {name: names[place] for name, place in zip(names, drawn, strict=True)}
    genres = list(data.movies.genres)
    for movie, taken_for in zip(held_out.movie_rows.tolist(), judged.movie_rows.tolist(), strict=True):
        genres[taken_for] = tuple(other[genre] for genre in data.movies.genres[movie])
    config = model.config()
    if config.get("padded_genres"):
        longest = max(len(data.movies.genres[movie]) for movie in np.unique(held_out.movie_rows))
        model = type(model).restore(
            {**config, "padded_genres": longest}, model.tensors(), model.vocabularies(), model.device
        )
    return model, replace(data, movies=replace(data.movies, genres=genres))
