"""Fits nn-collab-genre: `trainer.fits.nn_collab` with the embeddings of a movie's genres beside its own."""

from dataclasses import dataclass
from typing import Literal

from trainer.dataset import Dataset, Interactions
from trainer.fits import Progress, nn_collab
from two_tower.models.nn_collab import NnCollabGenre


@dataclass(frozen=True, slots=True)
class Options(nn_collab.Options):
    """How to fit; the defaults are the notebook's.

    Attributes:
        pooling: How a movie's genres become one vector: their sum, as there, their mean, or a place for each genre.
    """

    pooling: Literal["sum", "mean", "concat"] = "sum"


def fit(
    data: Dataset, options: Options, *, seed: int, progress: Progress, validation: Interactions | None = None
) -> NnCollabGenre:
    """Fits the network; see `trainer.fits.nn_collab.fit`."""
    return nn_collab.fit_as(
        NnCollabGenre, options.pooling, data, options, seed=seed, progress=progress, validation=validation
    )
