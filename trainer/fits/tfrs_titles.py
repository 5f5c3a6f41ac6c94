"""Fits tfrs-titles by mini-batch gradient descent. Knows the training rows; knows no held-out row.

The published notebook meant to stop early on a validation loss that its training did not have. Here a slice of the
training rows is held back for it. Its genre flags were joined by row label and so belonged to other movies; here they
are the movie's own (`trainer.notebook_bugs` puts them wrong again, for whoever wants the reported figure).
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from trainer.dataset import Dataset, Interactions
from trainer.fits import Progress
from trainer.fits.divergence import last_good_model
from trainer.fits.pair_training import Plan, run
from trainer.fits.rated_pairs import divide, require_scale
from trainer.fits.tfrs_simple import encoder_of_frequent
from trainer.fits.tower_pairs import Tower, TowerPairs, initialise_as_keras, put_unused_row_at_mean
from trainer.fits.training_state import TrainingState
from trainer.readers.word_vectors import read_word_vectors
from two_tower.features import MovieFeatures, Vocabulary
from two_tower.models.tfrs_titles import TITLE_WIDTH, Config, TfrsTitles, TitlesNetwork
from two_tower.title_words import WordBags, count_words, words_of

DECAY_STEPS = 4000
DECAY = 0.95
"""The notebook's ExponentialDecay: the rate is multiplied by .95 over every 4,000 steps, a little at each."""


KEEPS_STATE = True


@dataclass(frozen=True, slots=True)
class Options:
    """How to fit; all but the validation slice and the trained words is the notebook's.

    Attributes:
        coverage: Share of the training rows that the users with a row of their own have, and of the movies likewise.
        title_vectors: File of word vectors in GloVe's text format, which stay as they are; "" trains vectors along.
        min_titles: Titles that a word must occur in to get a trained vector.
        learning_rate: Of Adam, at the start.
        batch_size: Rows a step.
        epochs: Passes over the training rows, at most.
        patience: Epochs without a better validation loss after which training stops, 0 for never.
        validation_share: Share of the training rows that is held back to choose the epoch by; 0 takes the last epoch.
    """

    coverage: float = field(default=0.8, metadata={"low": 0.01, "high": 1.0})
    title_vectors: str = ""
    min_titles: int = field(default=2, metadata={"low": 1, "high": 1_000_000})
    learning_rate: float = field(default=2e-3, metadata={"low": 1e-7, "high": 1.0})
    batch_size: int = field(default=10_000, metadata={"low": 1, "high": 1 << 20})
    epochs: int = field(default=25, metadata={"low": 1, "high": 10_000})
    patience: int = field(default=5, metadata={"low": 0, "high": 10_000})
    validation_share: float = field(default=0.05, metadata={"low": 0.0, "high": 0.9})

    def __post_init__(self) -> None:
        if self.title_vectors and not Path(self.title_vectors).is_file():
            raise ValueError(f"title_vectors: there is no file {self.title_vectors!r}")


def fit(
    data: Dataset,
    options: Options,
    *,
    seed: int,
    progress: Progress,
    validation: Interactions | None = None,
    state: TrainingState | None = None,
) -> TfrsTitles:
    """Fits the network.

    Args:
        data: Its interactions are the training rows.
        options: How.
        seed: All chance comes from it.
        progress: Told once an epoch.
        validation: Rows to choose the epoch by, instead of a slice of the training rows.
        state: Where the training is kept between epochs; None does not keep it.

    Raises:
        DataError: The data has no ratings, or no rows, or the word vectors cannot be read.
        DivergedFitError: A loss is not finite.
    """
    scale = require_scale(data, TfrsTitles.name)
    encoder = encoder_of_frequent(data, options.coverage)
    words, vectors = _words(data, options)
    config = Config(
        TITLE_WIDTH if vectors is None else vectors.shape[1],
        len(encoder.users),
        len(encoder.movies),
        encoder.ages,
        encoder.years,
        scale,
    )
    network = TfrsTitles.make_network(config, {**encoder.vocabularies(), "words": words.words})
    initialise_as_keras(network, torch.Generator().manual_seed(seed))
    _fill_words(network.word_table, vectors)
    rng = np.random.default_rng(seed)
    learn, choose = divide(data, validation, options.validation_share, rng)
    user_rows = encoder.users.rows_of(data.user_ids)  # [users]
    features = encoder.encode_movies(data.movies)
    users = Tower(network.embed_users, config.num_users, torch.from_numpy(user_rows))
    movies = _movie_tower(network, features, WordBags.of(data.movies.titles, words))
    trainee = TowerPairs(network, users, movies, network.meet, _adam(network, options), _decay(options), learn, choose)
    with last_good_model(lambda: TfrsTitles(config, encoder, network, words)):
        run(trainee, _plan(options, len(learn), len(choose)), rng, progress, keeping=trainee.kept_in(state))
    put_unused_row_at_mean(network.user_table, user_rows[learn.users.numpy()])
    put_unused_row_at_mean(network.movie_table, features.rows[learn.movies.numpy()])
    return TfrsTitles(config, encoder, network, words)


def _movie_tower(network: TitlesNetwork, features: MovieFeatures, bags: WordBags) -> Tower:
    """Returns the movie side, which sums the words of a title anew at each step unless their vectors stay as they are.

    Args:
        network: What is trained.
        features: Of the movies of the data set.
        bags: The words of their titles.
    """
    rows_in_table = torch.from_numpy(features.rows)  # [movies]
    genres = torch.from_numpy((features.genres > 0).astype(np.float32))  # [movies, G]
    fixed_titles = None if network.word_table.requires_grad else bags.sums(network.word_table)  # [movies, word_width]

    def embed(rows: Tensor) -> Tensor:
        if fixed_titles is not None:
            titles = fixed_titles[rows]
        else:
            some = bags if len(rows) == len(bags) else bags.take(rows.numpy())
            titles = some.sums(network.word_table)  # [B, word_width]
        return network.embed_movies(rows_in_table[rows], titles, genres[rows])

    return Tower(embed, len(bags), torch.arange(len(bags)))


def _adam(network: TitlesNetwork, options: Options) -> torch.optim.Adam:
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    return torch.optim.Adam(trained, options.learning_rate, eps=1e-7, fused=True)  # Keras's epsilon


def _decay(options: Options) -> Callable[[int], float]:
    """Returns the learning rate by the number of steps taken."""
    return lambda step: float(options.learning_rate * DECAY ** (step / DECAY_STEPS))


def _plan(options: Options, num_rows: int, num_validation_rows: int) -> Plan:
    """Returns how long to train: to the end, if no row is there to choose the epoch by."""
    choosing = num_validation_rows > 0
    return Plan(
        num_rows,
        options.batch_size,
        options.epochs,
        "mse",
        keep="validation" if choosing else "last",
        patience=options.patience if choosing else 0,
    )


def _words(data: Dataset, options: Options) -> tuple[Vocabulary, Tensor | None]:
    """Returns the words that have a vector, and their vectors if those are read from a file. [words, word_width]."""
    if not options.title_vectors:
        return count_words(data.movies.titles, min_titles=options.min_titles), None
    wanted = {word for title in data.movies.titles for word in words_of(title)}
    read = read_word_vectors(Path(options.title_vectors), wanted)
    return Vocabulary.of(read.words), torch.from_numpy(read.table)


def _fill_words(table: torch.nn.Parameter, vectors: Tensor | None) -> None:
    """Puts vectors from a file in their place, where they stay; row 0 is zeros, for it is never looked up."""
    with torch.no_grad():
        table[0] = 0
        if vectors is not None:
            table[1:] = vectors
            table.requires_grad_(False)
