"""Fits the `marquee` model, head by head.

A trained user keeps the rating vector that the members learned with the movies'; of a stranger serving infers it.
"""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from trainer.dataset import Dataset
from trainer.errors import DataError
from trainer.fits import Progress, silent
from trainer.fits.curves import CurveRecorder
from trainer.fits.marquee_deviations import DEVIATIONS_STAGE, VarianceFactors, measure_factors
from trainer.fits.marquee_options import Options
from trainer.fits.marquee_ranking import RANKING_STAGE, fit_ranking_head, heeds_times, memories_of
from trainer.fits.marquee_rating import MANY_RATINGS, NO_RATING_HEAD, RatingHead, fit_rating_head, steps_of
from trainer.fits.torch_threads import torch_threads
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
        data: Its interactions are the training rows. Without ratings only the retrieval head is made; without times,
            or if they are not to count, that is a linear autoencoder.
        options: Constants.
        seed: All chance comes from it.
        progress: Told once an epoch.

    Raises:
        DataError: There are no interactions, or, in data with ratings, none of them has one; or times are to count
            and there are none.
    """
    if not len(data.interactions):
        raise DataError(f"{data.name} has no interactions to train on")
    if data.scale is not None and np.isnan(data.interactions.ratings).all():
        raise DataError(f"{data.name} has a rating scale, but none of the rows to train on has a rating")
    with torch_threads(options.threads):
        return _fit(data, options, seed, progress)


def _fit(data: Dataset, options: Options, seed: int, progress: Progress) -> Marquee:
    rated = data.scale is not None
    trained = TrainedRows.of(data)
    rating_seed, ranking_seed, questions_seed = np.random.SeedSequence(seed).spawn(3)
    num_ratings = int((~np.isnan(data.interactions.ratings)).sum()) if rated else 0
    of_rating = steps_of(options, num_ratings) if rated else {}
    measured = rated and _is_measured(options, num_ratings)
    of_measuring = {DEVIATIONS_STAGE: sum(of_rating.values())} if measured else {}
    timed = heeds_times(options, data.has_times)
    of_ranking = {RANKING_STAGE: max(1, options.ranking_epochs) if timed else 1}
    stages = _Stages(progress, of_rating | of_measuring | of_ranking)
    content = movie_content(trained.movies, trained.encoder)
    rating = NO_RATING_HEAD
    factors: VarianceFactors | None = None
    if rated:
        rating = fit_rating_head(trained, content, options, np.random.default_rng(rating_seed), stages)
    if measured:

        def clone(part: Dataset) -> Marquee:
            # What the clone tells of its losses belongs to no curve.
            with CurveRecorder(silent).listening():
                return _fit_rating_only(part, options, rating_seed, stages, sum(of_measuring.values()))

        factors = measure_factors(data, clone, np.random.default_rng(questions_seed))
    memories = memories_of(options, timed)
    ranking = fit_ranking_head(trained, content, memories, options, timed, np.random.default_rng(ranking_seed), stages)
    return _put_together(data, trained, options, rating, ranking, factors or VarianceFactors())


def _is_measured(options: Options, num_ratings: int) -> bool:
    return num_ratings < MANY_RATINGS if options.measured_deviations is None else options.measured_deviations


def _fit_rating_only(
    data: Dataset,
    options: Options,
    seed: np.random.SeedSequence,
    stages: Callable[[str, int, int], None],
    planned_steps: int,
) -> Marquee:
    """Fits the rating head and puts a retrieval head of zeros beside it."""
    trained = TrainedRows.of(data)
    steps = steps_of(options, int((~np.isnan(data.interactions.ratings)).sum()))

    def counted(stage: str, done: int, _: int) -> None:
        names = list(steps)
        before = sum(steps[name] for name in names[: names.index(stage)])
        stages(DEVIATIONS_STAGE, (before + done) * planned_steps // sum(steps.values()), planned_steps)

    rating = fit_rating_head(
        trained, movie_content(trained.movies, trained.encoder), options, np.random.default_rng(seed), counted
    )
    return _put_together(data, trained, options, rating, None, VarianceFactors())


def _put_together(
    data: Dataset,
    trained: TrainedRows,
    options: Options,
    rating: RatingHead,
    ranking: dict[str, Tensor] | None,
    factors: VarianceFactors,
) -> Marquee:
    """Makes the model of both heads; without a retrieval head it has one of zeros."""
    config = MarqueeConfig(
        scale=data.scale,
        rating_size=rating.size,
        ranking_size=1 if ranking is None else ranking["ranking.vectors"].shape[1],
        memories=memories_of(options, heeds_times(options, data.has_times)),
        noise_variance=rating.noise_variance,
        cold_noise_variance=rating.cold_noise_variance,
        spread_variance=factors.noise * rating.spread_variance,
        prior_events=options.prior_events,
        implicit_damping=options.implicit_damping,
        data_until_ms=int(data.interactions.event_times_ms.max()) if data.has_times else 0,
        years=trained.encoder.years,
        ages=trained.encoder.ages,
        user_variance_factor=factors.user,
    )
    shapes = tensor_shapes(config, trained.encoder)
    if ranking is None:
        ranking = {name: torch.zeros(shape) for name, shape in shapes.items() if name.startswith("ranking.")}
    tensors = rating.tensors | ranking
    if data.scale is not None:
        tensors["rating.variances"] = factors.movie * tensors["rating.variances"]
    return Marquee(config, trained.encoder, {name: tensors[name].contiguous() for name in shapes})
