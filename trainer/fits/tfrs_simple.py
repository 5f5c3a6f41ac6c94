"""Fits tfrs-simple by mini-batch gradient descent. Knows the training rows; knows no held-out row.

The published notebook stopped when the *training* loss no longer fell, and so does this: with 60,000 numbers in its
tables and a million ratings there is little to overfit. `validation_share` lets held-back rows say when instead.

What the notebook's library reports as the loss of an epoch is that of its last batch, the 198 rows that are left of
950,198 (tensorflow_recommenders/models/base.py, `train_step`): a figure that rises and falls by chance, so that five
epochs without a better one come early, on the plateau that training passes on its way. `stop_by=last-batch` brings it
back, and with it half of the way to the reported RMSE (docs/experiments.md).
"""

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch

from trainer.dataset import Dataset, Interactions
from trainer.fits import Progress
from trainer.fits.divergence import last_good_model
from trainer.fits.pair_training import Plan, run
from trainer.fits.rated_pairs import divide, require_scale
from trainer.fits.tower_pairs import (
    Tower,
    TowerPairs,
    initialise_as_keras,
    put_unused_row_at_mean,
    shortest_prefix,
)
from trainer.fits.training_state import TrainingState
from two_tower.features import FeatureEncoder
from two_tower.models.tfrs_simple import Config, TfrsSimple

KEEPS_STATE = True


@dataclass(frozen=True, slots=True)
class Options:
    """How to fit; the defaults are the notebook's.

    Attributes:
        coverage: Share of the training rows that the users with a row of their own have, and of the movies likewise.
        learning_rate: Of Adam.
        batch_size: Rows a step.
        epochs: Passes over the training rows, at most.
        patience: Epochs without a better loss after which training stops; the best epoch gives the weights.
        stop_by: Which training loss counts: the mean of the epoch, or that of its last batch.
        validation_share: Share of the training rows that is held back, whose loss then counts; 0 takes the training
            loss.
    """

    coverage: float = field(default=0.8, metadata={"low": 0.01, "high": 1.0})
    learning_rate: float = field(default=2e-3, metadata={"low": 1e-7, "high": 1.0})
    batch_size: int = field(default=10_000, metadata={"low": 1, "high": 1 << 20})
    epochs: int = field(default=1000, metadata={"low": 1, "high": 10_000})
    patience: int = field(default=5, metadata={"low": 1, "high": 10_000})
    stop_by: Literal["epoch", "last-batch"] = "epoch"
    validation_share: float = field(default=0.0, metadata={"low": 0.0, "high": 0.9})


def fit(
    data: Dataset,
    options: Options,
    *,
    seed: int,
    progress: Progress,
    validation: Interactions | None = None,
    state: TrainingState | None = None,
) -> TfrsSimple:
    """Fits the network.

    Args:
        data: Its interactions are the training rows.
        options: How.
        seed: All chance comes from it.
        progress: Told once an epoch.
        validation: Rows whose loss says when to stop, instead of the training rows.
        state: Where the training is kept between epochs; None does not keep it.

    Raises:
        DataError: The data has no ratings, or no rows.
        DivergedFitError: A loss is not finite.
    """
    scale = require_scale(data, TfrsSimple.name)
    encoder = encoder_of_frequent(data, options.coverage)
    config = Config(len(encoder.users), len(encoder.movies), encoder.ages, encoder.years, scale)
    network = TfrsSimple.make_network(config, encoder.vocabularies())
    initialise_as_keras(network, torch.Generator().manual_seed(seed))
    rng = np.random.default_rng(seed)
    learn, choose = divide(data, validation, options.validation_share, rng)
    user_rows = encoder.users.rows_of(data.user_ids)  # [users]
    movie_rows = encoder.movies.rows_of(data.movies.movie_ids)  # [movies]
    trainee = TowerPairs(
        network,
        Tower(network.embed_users, config.num_users, torch.from_numpy(user_rows)),
        Tower(network.embed_movies, config.num_movies, torch.from_numpy(movie_rows)),
        network.meet,
        torch.optim.Adam(network.parameters(), options.learning_rate, eps=1e-7, fused=True),  # Keras's epsilon
        None,
        learn,
        choose,
    )
    plan = Plan(
        len(learn),
        options.batch_size,
        options.epochs,
        "mse",
        keep="validation" if len(choose) else "last batch" if options.stop_by == "last-batch" else "training",
        patience=options.patience,
    )
    with last_good_model(lambda: TfrsSimple(config, encoder, network)):
        run(trainee, plan, rng, progress, keeping=trainee.kept_in(state))
    put_unused_row_at_mean(network.user_table, user_rows[learn.users.numpy()])
    put_unused_row_at_mean(network.movie_table, movie_rows[learn.movies.numpy()])
    return TfrsSimple(config, encoder, network)


def encoder_of_frequent(data: Dataset, coverage: float) -> FeatureEncoder:
    """Returns an encoder in which only the most active users and the most rated movies have a row of their own.

    Args:
        data: Its interactions are counted.
        coverage: Share of the interactions that those users have, and those movies.
    """
    rows = data.interactions
    return FeatureEncoder.of(
        [data.user_ids[row] for row in shortest_prefix(rows.user_rows, coverage)],
        [data.movies.movie_ids[row] for row in shortest_prefix(rows.movie_rows, coverage)],
        data.profiles,
        data.movies,
    )
