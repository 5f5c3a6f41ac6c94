"""Fits the baseline that guesses ratings, each as often as it occurs in training."""

from dataclasses import dataclass

from trainer.dataset import Dataset
from trainer.fits import Progress
from trainer.fits.chance_keys import make_chance
from two_tower.models.chance import Weighted


@dataclass(frozen=True, slots=True)
class Options:
    """There is nothing to choose."""


def fit(data: Dataset, options: Options, *, seed: int, progress: Progress) -> Weighted:
    """Draws keys.

    Raises:
        DataError: The data has no rows.
    """
    progress(1, 1, "keys drawn")
    return make_chance(Weighted, data, seed, by_frequency=True)
