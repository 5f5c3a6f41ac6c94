"""Fits the baseline that says the mean rating to everybody of everything."""

from dataclasses import dataclass

import numpy as np

from trainer.dataset import Dataset
from trainer.fits import Progress
from trainer.fits.baseline_tables import make_baseline, rated_of
from trainer.fits.trained_rows import TrainedRows
from two_tower.models.baselines import Mean


@dataclass(frozen=True, slots=True)
class Options:
    """There is nothing to choose."""


def fit(data: Dataset, options: Options, *, seed: int, progress: Progress) -> Mean:
    """Takes the mean.

    Raises:
        DataError: The data has no ratings, or no rows.
    """
    trained = TrainedRows.of(data)
    rated = rated_of(Mean.name, data, trained)
    progress(1, 1, "mean taken")
    return make_baseline(Mean, data, trained, global_mean=float(rated.ratings.mean(dtype=np.float64)))
