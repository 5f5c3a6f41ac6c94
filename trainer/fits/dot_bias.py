"""Fits dot-bias: sigmoid(p·q + b_u + b_i), stretched to stars, by Adam on batches of 64, as a published notebook does.

Whoever has no rating has the mean of the trained rows. Knows the training rows; knows no held-out row.
"""

from dataclasses import dataclass

import numpy as np

from trainer.dataset import Dataset
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
from trainer.fits.squashed_factors import SquashedFactors
from two_tower.models.dot_bias import DotBias
from two_tower.models.factor_tables import FactorConfig


@dataclass(frozen=True, slots=True)
class Options(FactorOptions):
    """How to fit; see `FactorOptions`."""


def fit(data: Dataset, options: Options, *, seed: int, progress: Progress) -> DotBias:
    """Fits the tables.

    Raises:
        DataError: The data has no ratings, or no rows.
        DivergedError: An error is no longer a number.
    """
    trained, rated = rated_rows(DotBias.name, data)
    rng = np.random.default_rng(seed)
    learn, stop_by = divided(rated, options, rng)
    floor, ceiling = squashed_range(data, options.margin)
    sizes = trained.num_users + 1, trained.num_movies + 1
    factors = SquashedFactors(*sizes, learn, stop_by, steps_of(options, floor, ceiling), rng)
    run(factors, plan_of(options, len(learn)), rng, progress)
    config = FactorConfig(
        scale=data.scale,
        ages=trained.encoder.ages,
        years=trained.encoder.years,
        factors=options.factors,
        global_mean=0.0,
        floor=floor,
        ceiling=ceiling,
        rounded=options.rounded,
    )
    tensors = vectors_and_biases("users", with_mean_row(factors.users, learn.user_rows))
    tensors |= vectors_and_biases("movies", with_mean_row(factors.movies, learn.movie_rows))
    return DotBias(config, trained.encoder, tensors)
