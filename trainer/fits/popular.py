"""Fits the baseline that recommends what most have watched and rates a movie by its damped mean."""

from dataclasses import dataclass, field

import numpy as np

from trainer.dataset import Dataset
from trainer.errors import DataError
from trainer.fits import Progress
from trainer.fits.baseline_tables import make_baseline
from trainer.fits.trained_rows import TrainedRows
from two_tower.models.baselines import Popular


@dataclass(frozen=True, slots=True)
class Options:
    """How to fit.

    Attributes:
        movie_damping: Mean ratings that each movie is given beside its own; 3 as in `trainer.fits.biases`.
    """

    movie_damping: float = field(default=3.0, metadata={"low": 0.001, "high": 1e6})


def fit(data: Dataset, options: Options, *, seed: int, progress: Progress) -> Popular:
    """Counts; data without ratings is ranked only.

    Raises:
        DataError: The data has no rows.
    """
    if not len(data.interactions):
        raise DataError(f"{data.name} has no interactions to train on")
    trained = TrainedRows.of(data)
    rows = trained.interactions
    watched = np.bincount(rows.movie_rows, minlength=trained.num_movies).astype(np.float64)
    rated = rows.take(~np.isnan(rows.ratings))
    progress(1, 1, "movies counted")
    if data.scale is None or not len(rated):
        return make_baseline(Popular, data, trained, global_mean=0.0, ranking=watched)
    global_mean = float(rated.ratings.mean(dtype=np.float64))
    sums = np.bincount(rated.movie_rows, rated.ratings - global_mean, trained.num_movies)
    counts = np.bincount(rated.movie_rows, minlength=trained.num_movies)
    biases = sums / (counts + options.movie_damping)
    return make_baseline(Popular, data, trained, global_mean=global_mean, movies=biases, ranking=watched)
