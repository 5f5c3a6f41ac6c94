"""Fits the baseline that says the most frequent rating to everybody of everything."""

from dataclasses import dataclass

import numpy as np

from trainer.dataset import Dataset
from trainer.fits import Progress
from trainer.fits.baseline_tables import make_baseline, rated_of
from trainer.fits.trained_rows import TrainedRows
from two_tower.models.baselines import Majority


@dataclass(frozen=True, slots=True)
class Options:
    """There is nothing to choose."""


def fit(data: Dataset, options: Options, *, seed: int, progress: Progress) -> Majority:
    """Counts; of two ratings equally frequent the lower one wins.

    Raises:
        DataError: The data has no ratings, or no rows.
    """
    trained = TrainedRows.of(data)
    rated = rated_of(Majority.name, data, trained)
    ratings, counts = np.unique(rated.ratings, return_counts=True)
    progress(1, 1, "ratings counted")
    return make_baseline(Majority, data, trained, global_mean=float(ratings[np.argmax(counts)]))
