"""Fits dot-bias-genre: dot-bias whose movie vectors are multiplied by one plus their genres', as a notebook does.

The notebook filled the lists of genres up with number 0, which was a genre, and numbered genres in the order of a set;
here nothing is filled up and the order is the alphabet's. `padded_genres=true` fills them up again.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from trainer.dataset import Dataset
from trainer.errors import DataError
from trainer.fits import Progress
from trainer.fits.factor_options import (
    FactorOptions,
    divided,
    plan_of,
    rated_rows,
    squashed_range,
    steps_of,
    vectors_and_biases,
    with_mean_row,
)
from trainer.fits.pair_training import run
from trainer.fits.squashed_factors import Genres, SquashedFactors
from two_tower.models.dot_bias_genre import DotBiasGenre, GenreFactorConfig, genre_weights


@dataclass(frozen=True, slots=True)
class Options(FactorOptions):
    """How to fit; see `FactorOptions`.

    Attributes:
        genre_pooling: "sum" and "mean" multiply the movie's vector; "concat" gives the mean genre coordinates of its
            own, half of `factors`.
        padded_genres: The notebook's bug: to every movie with fewer genres than the one with most, the first genre is
            added as often as is missing.
    """

    genre_pooling: Literal["sum", "mean", "concat"] = "sum"
    padded_genres: bool = False


def fit(data: Dataset, options: Options, *, seed: int, progress: Progress) -> DotBiasGenre:
    """Fits the tables.

    Raises:
        DataError: The data has no ratings, or no rows; or coordinates cannot be halved.
        DivergedError: An error is no longer a number.
    """
    if options.genre_pooling == "concat" and options.factors % 2:
        raise DataError(f"factors is {options.factors}; genre_pooling=concat needs an even number")
    trained, rated = rated_rows(DotBiasGenre.name, data)
    rng = np.random.default_rng(seed)
    learn, stop_by = divided(rated, options, rng)
    floor, ceiling = squashed_range(data, options.margin)
    config = GenreFactorConfig(
        scale=data.scale,
        ages=trained.encoder.ages,
        years=trained.encoder.years,
        factors=options.factors,
        global_mean=0.0,
        floor=floor,
        ceiling=ceiling,
        rounded=options.rounded,
        pooling=options.genre_pooling,
        padded_genres=max((len(genres) for genres in data.movies.genres), default=0) if options.padded_genres else 0,
    )
    weights = genre_weights(
        [(), *trained.movies.genres], trained.encoder.genres, config.pooling, config.padded_genres
    )  # [I, G]
    sizes = trained.num_users + 1, trained.num_movies + 1
    genres = Genres(weights, own_coordinates=config.pooling == "concat")
    factors = SquashedFactors(*sizes, learn, stop_by, steps_of(options, floor, ceiling), rng, genres)
    run(factors, plan_of(options, len(learn)), rng, progress)
    tensors = vectors_and_biases("users", with_mean_row(factors.users, learn.user_rows))
    tensors |= vectors_and_biases("movies", with_mean_row(factors.movies, learn.movie_rows))
    factors.genres[0] = 0  # of the unknown genre, which no training row has
    tensors |= vectors_and_biases("genres", factors.genres)
    return DotBiasGenre(config, trained.encoder, tensors)
