"""Fits nn-collab by mini-batch gradient descent. Knows the training rows; knows no held-out row.

The id tables follow Adam as the published notebook's do, unused rows included, but late (`LateAdam`): a step then costs
what its 64 rows cost and not what all users and movies cost. `adam=used-rows` leaves out the steps that rows missed.

The notebook knows no unknown user or movie. Here a small share of the ids is hidden in training, so that row 0 of each
table learns to stand for whoever has no row; `unknown_rate=0` gives the notebook, with row 0 at the mean of the others.
"""

from dataclasses import dataclass, field
from typing import Literal, TypeVar

import numpy as np
import torch
from torch import nn

from trainer.dataset import Dataset, Interactions
from trainer.fits import Progress
from trainer.fits.collab_steps import CollabSteps
from trainer.fits.divergence import last_good_model
from trainer.fits.pair_training import Plan, run
from trainer.fits.rated_pairs import divide, encoder_of, require_scale
from two_tower.models.nn_collab import CollabNetwork, Config, NnCollab

ModelT = TypeVar("ModelT", bound=NnCollab)


@dataclass(frozen=True, slots=True)
class Options:
    """How to fit; the defaults are the notebook's.

    Attributes:
        learning_rate: Of Adam.
        batch_size: Rows a step.
        epochs: Passes over the training rows, at most.
        dropout: Share of the hidden layer that a step leaves out.
        patience: Epochs without a better validation loss after which training stops; 0 trains them all. Above 0 the
            best epoch's weights are kept and `validation_share` of the rows is not learnt from.
        validation_share: See `patience`.
        rounded: Whether ratings are rounded to the steps of the scale.
        margin: Where the sigmoid's ends lie: steps of the scale below its lowest and above its highest rating. The
            notebook's 0 and 5.5 about half stars are 1.
        initial_deviation: Of the normal numbers that embeddings start with.
        unknown_rate: Share of ids that training hides, 0 to below 1.
        adam: "every-row" moves a row at every step, as the notebook's; "used-rows" only those of the batch.
    """

    learning_rate: float = field(default=1e-3, metadata={"low": 1e-7, "high": 1.0})
    batch_size: int = field(default=64, metadata={"low": 1, "high": 1 << 20})
    epochs: int = field(default=10, metadata={"low": 1, "high": 10_000})
    dropout: float = field(default=0.0, metadata={"low": 0.0, "high": 0.9})
    patience: int = field(default=0, metadata={"low": 0, "high": 10_000})
    validation_share: float = field(default=0.1, metadata={"low": 0.001, "high": 0.5})
    rounded: bool = False
    margin: float = field(default=0.5, metadata={"low": 0.0, "high": 100.0})
    initial_deviation: float = field(default=1.0, metadata={"low": 1e-6, "high": 10.0})
    unknown_rate: float = field(default=0.01, metadata={"low": 0.0, "high": 0.9})
    adam: Literal["every-row", "used-rows"] = "every-row"


def fit(
    data: Dataset, options: Options, *, seed: int, progress: Progress, validation: Interactions | None = None
) -> NnCollab:
    """Fits the network.

    Args:
        data: Its interactions are the training rows.
        options: How.
        seed: All chance comes from it.
        progress: Told once an epoch.
        validation: Rows to choose the epoch by, instead of a slice of the training rows.

    Raises:
        DataError: The data has no ratings, or no rows.
        DivergedFitError: A loss is not finite.
    """
    return fit_as(NnCollab, "none", data, options, seed=seed, progress=progress, validation=validation)


def fit_as(
    kind: type[ModelT],
    pooling: Literal["none", "sum", "mean", "concat"],
    data: Dataset,
    options: Options,
    *,
    seed: int,
    progress: Progress,
    validation: Interactions | None,
    padded_genres: int = 0,
) -> ModelT:
    """Fits either form of the network; see `fit`."""
    scale = require_scale(data, kind.name)
    encoder = encoder_of(data)
    config = Config(
        user_width=embedding_width(len(data.user_ids)),
        movie_width=embedding_width(len(data.movies)),
        genre_width=0 if pooling == "none" else embedding_width(len(encoder.genres)),
        pooling=pooling,
        padded_genres=padded_genres,
        low=scale.low - scale.step * options.margin,
        high=scale.high + scale.step * options.margin,
        rounded=options.rounded,
        num_users=len(encoder.users),
        num_movies=len(encoder.movies),
        ages=encoder.ages,
        years=encoder.years,
        scale=scale,
    )
    rng = np.random.default_rng(seed)
    learn, choose = divide(data, validation, options.validation_share if options.patience else 0, rng)
    network = kind.make_network(config, encoder.vocabularies())
    _initialise(network, options.initial_deviation, torch.Generator().manual_seed(seed))
    movies = encoder.encode_movies(data.movies)
    trainee = CollabSteps(
        network,
        config,
        encoder.users.rows_of(data.user_ids),
        movies.rows,
        movies.genres,
        learn,
        choose,
        rng,
        learning_rate=options.learning_rate,
        dropout=options.dropout,
        unknown_rate=options.unknown_rate,
        late_steps=options.adam == "every-row",
    )
    plan = Plan(
        len(learn),
        options.batch_size,
        options.epochs,
        "mse",
        keep="validation" if options.patience and len(choose) else "last",
        patience=options.patience,
    )
    with last_good_model(lambda: kind(config, encoder, network)):
        run(trainee, plan, rng, progress)
    if not options.unknown_rate:
        with torch.no_grad():
            for table in (network.user_table, network.movie_table):
                table[0] = table[1:].mean(dim=0)
    return kind(config, encoder, network)


def embedding_width(num_rows: int) -> int:
    """Returns the notebook's width, a rule of thumb of the fastai library: min(600, round(1.6 · n^0.56))."""
    return int(max(1, min(600, round(1.6 * float(num_rows) ** 0.56))))


def _initialise(network: CollabNetwork, deviation: float, generator: torch.Generator) -> None:
    """Starts as the notebook's library does: tables normal, layers uniform within 1/√width; row 0 at the mean."""
    with torch.no_grad():
        for table in (network.user_table, network.movie_table, network.genre_table):
            table.normal_(std=deviation, generator=generator)
            table[:1] = 0
        width = network.user_layer.in_features + network.movie_layer.in_features
        _uniform(network.user_layer, width, generator)
        _uniform(network.movie_layer, width, generator)
        _uniform(network.output, network.output.in_features, generator)


def _uniform(layer: nn.Linear, width: int, generator: torch.Generator) -> None:
    for parameter in layer.parameters():
        parameter.uniform_(-(width**-0.5), width**-0.5, generator=generator)
