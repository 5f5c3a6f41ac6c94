"""Fits `two-tower`: both heads at once, by Adam over cuts of every user's history. Knows the training rows only.

A cut gives the events before one and asks for the next movies (ranking head) and for ratings of later ones (rating
head), so a row sees only its past; `hide_ties` says what is past within a moment. Data without times has no past: each
epoch draws an order. Ids are
hidden now and then, so that strangers and movies that nobody watched have what is known of them instead.
"""

import math

import torch
from torch import nn

from trainer.dataset import Dataset
from trainer.errors import DataError
from trainer.fits import Progress
from trainer.fits.divergence import last_good_model
from trainer.fits.torch_threads import torch_threads
from trainer.fits.training_state import TrainingState
from trainer.fits.two_tower_features import Statistics, TrainingFeatures, make_config
from trainer.fits.two_tower_options import Options
from trainer.fits.two_tower_sequences import Sequences
from trainer.fits.two_tower_step import Step
from trainer.fits.two_tower_training import Training, choose_schedule
from trainer.processes import Processes, joined
from two_tower.models.two_tower import TwoTower, make_towers
from two_tower.models.two_tower_towers import Towers

__all__ = ["IN_PROCESSES", "KEEPS_STATE", "Options", "fit"]

KEEPS_STATE = IN_PROCESSES = True
"""See `trainer.fits.Fit`."""

TABLE_SPREAD = 0.05
"""Standard deviation of all tables at the start. LL."""

SHORT_DECAY, LONG_DECAY, RATING_DECAY = 2.0, 12.0, 400.0
"""Events after which a memory has faded to 1/e, at the start: the first two are LL's; ratings keep their worth."""

FLAT_GAIN = 0.1
"""What the long memory never forgets, at the start. LL."""


def fit(
    data: Dataset, options: Options, *, seed: int, progress: Progress, state: TrainingState | None = None
) -> TwoTower:
    """Fits the network.

    Args:
        data: See `trainer.fits.FitFunction`; its interactions may lie on disk.
        options: See `Options`.
        seed: All chance comes from it.
        progress: Told some times an epoch.
        state: Where the training is kept between epochs; None does not keep it.

    Raises:
        DataError: The data has no rows, or lacks a bag that the options name.
        DivergedFitError: The loss is no longer a number.
    """
    if not len(data.interactions):
        raise DataError(f"{data.name} has no interactions to train on")
    with torch_threads(options.threads), joined() as processes:
        return _fit(data, options, seed, progress, state, processes)


def _fit(
    data: Dataset, options: Options, seed: int, progress: Progress, state: TrainingState | None, processes: Processes
) -> TwoTower:
    statistics = Statistics.of(data.interactions, len(data.user_ids), len(data.movies))
    features = TrainingFeatures.of(data, statistics, options)
    config = make_config(data, statistics, features, options)
    towers = make_towers(config, features.encoder, features.words)
    _initialise(towers, features, seed)
    towers = towers.to(processes.device)
    num_movies = len(features.encoder.movies) - 1
    full = options.negatives == "full" or (options.negatives == "auto" and num_movies <= options.full_softmax_movies)
    sequences = Sequences.of(data.interactions, len(data.user_ids), ordered=data.has_times)
    schedule = choose_schedule(options, len(features.encoder.users), num_movies if full else options.sampled_movies)
    step = Step(towers, features, options, full_softmax=full)

    def make() -> TwoTower:
        return TwoTower(config, features.encoder, features.words, towers.cpu())

    with last_good_model(make):
        Training(step, sequences, options, schedule, seed, processes).run(state, progress)
    return make()


def _initialise(towers: Towers, features: TrainingFeatures, seed: int) -> None:
    """Starts as LL does; what is new here starts at nothing, layers uniform within 1/√width as torch has it."""
    generator = torch.Generator().manual_seed(seed)
    config = towers.config
    with torch.no_grad():
        for name, tensor in towers.named_parameters():
            if name.endswith("_table"):
                tensor.normal_(0, TABLE_SPREAD, generator=generator)
        for name, layer in towers.named_modules():
            if isinstance(layer, nn.Linear):
                bound = 0.0 if name in ("user_layer", "value_layer") else layer.in_features**-0.5
                layer.weight.uniform_(-bound, bound, generator=generator)
                if layer.bias is not None:
                    layer.bias.zero_()
        for table in (towers.user_table, towers.ranking_table, towers.rating_table):
            table[0] = 0
        towers.user_table[:, -1] = 0
        counts = torch.from_numpy(features.frequencies) * float(1 / max(features.frequencies[1:].min(initial=1), 1e-12))
        towers.ranking_table[:, config.ranking_size] = 0.5 * torch.log1p(counts)
        towers.rating_table[:, config.rating_size] = 0
        towers.movie_means.copy_(torch.from_numpy(features.movie_means))
        towers.mean_gain.fill_(1.0 if config.movie_means else 0.0)
        towers.log_decays.copy_(-torch.log(torch.tensor([SHORT_DECAY, LONG_DECAY, RATING_DECAY])))
        towers.flat_gain.fill_(FLAT_GAIN)
        towers.rating_gates.zero_()
        towers.scale_gains.copy_(torch.tensor([1.0, 0.0]))
        if features.title_vectors is not None:
            towers.title_vectors.copy_(torch.from_numpy(features.title_vectors))
        if config.attention_size:
            # Slopes of a geometric series, as Press et al. 2022, section 3.
            heads = torch.arange(1, config.attention_heads + 1)
            towers.age_slopes.copy_(-heads * 8 / config.attention_heads * math.log(2))
