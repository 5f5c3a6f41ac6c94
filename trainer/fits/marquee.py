"""Fits the `marquee` model, head by head.

A trained user keeps the rating vector that the members learned with the movies'; of a stranger serving infers it.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor

from trainer.dataset import Dataset
from trainer.errors import DataError
from trainer.fits import Progress
from trainer.fits.marquee_options import Options
from trainer.fits.marquee_ranking import RANKING_STAGE, fit_ranking_head, memories_of
from trainer.fits.marquee_rating import NO_RATING_HEAD, fit_rating_head, steps_of
from trainer.fits.trained_rows import TrainedRows
from two_tower.models.marquee import Marquee, tensor_shapes
from two_tower.models.marquee_config import MarqueeConfig
from two_tower.models.marquee_content import movie_content

__all__ = ["Options", "fit"]


class _Stages:
    """Adds the steps of all stages of the fit up to one count."""

    def __init__(self, progress: Progress, steps: dict[str, int]) -> None:
        self._progress = progress
        self._steps = steps

    def __call__(self, stage: str, done: int, total: int) -> None:
        names = list(self._steps)
        before = sum(self._steps[name] for name in names[: names.index(stage)])
        message = f"{stage}: epoch {min(done + 1, total)} of {total}"
        self._progress(before + done, sum(self._steps.values()), message)


def fit(data: Dataset, options: Options, *, seed: int, progress: Progress) -> Marquee:
    """Fits the model.

    Args:
        data: Its interactions are the training rows. Without ratings only the retrieval head is made; without times
            that is a linear autoencoder.
        options: Constants.
        seed: All chance comes from it.
        progress: Told once an epoch.

    Raises:
        DataError: There are no interactions, or, in data with ratings, none of them has one.
    """
    if not len(data.interactions):
        raise DataError(f"{data.name} has no interactions to train on")
    if data.scale is not None and np.isnan(data.interactions.ratings).all():
        raise DataError(f"{data.name} has a rating scale, but none of the rows to train on has a rating")
    with _torch_threads(options.threads):
        return _fit(data, options, seed, progress)


@contextmanager
def _torch_threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _fit(data: Dataset, options: Options, seed: int, progress: Progress) -> Marquee:
    rated = data.scale is not None
    trained = TrainedRows.of(data)
    tower_seed, ranking_seed = np.random.SeedSequence(seed).spawn(2)
    num_ratings = int((~np.isnan(data.interactions.ratings)).sum()) if rated else 0
    steps = steps_of(options, num_ratings) if rated else {}
    stages = _Stages(progress, steps | {RANKING_STAGE: max(1, options.ranking_epochs) if data.has_times else 1})
    content = movie_content(trained.movies, trained.encoder)
    tensors: dict[str, Tensor] = {}
    rating = NO_RATING_HEAD
    if rated:
        rating = fit_rating_head(trained, content, options, np.random.default_rng(tower_seed), stages)
        tensors |= rating.tensors
    memories = memories_of(options, data.has_times)
    tensors |= fit_ranking_head(
        trained, content, memories, options, data.has_times, np.random.default_rng(ranking_seed), stages
    )
    config = MarqueeConfig(
        scale=data.scale,
        rating_size=rating.size,
        ranking_size=tensors["ranking.vectors"].shape[1],
        memories=memories,
        noise_variance=rating.noise_variance,
        cold_noise_variance=rating.cold_noise_variance,
        spread_variance=rating.spread_variance,
        prior_events=options.prior_events,
        implicit_damping=options.implicit_damping,
        data_until_ms=int(data.interactions.event_times_ms.max()) if data.has_times else 0,
        years=trained.encoder.years,
        ages=trained.encoder.ages,
    )
    return Marquee(
        config, trained.encoder, {name: tensors[name].contiguous() for name in tensor_shapes(config, trained.encoder)}
    )
