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
        padded_genres: Brings a bug back: lists of genres were filled up to the longest one with the number of a genre.
    """

    pooling: Literal["sum", "mean", "concat"] = "sum"
    padded_genres: bool = False


def fit(
    data: Dataset, options: Options, *, seed: int, progress: Progress, validation: Interactions | None = None
) -> NnCollabGenre:
    """Fits the network; see `trainer.fits.nn_collab.fit`."""
    longest = max((len(genres) for genres in data.movies.genres), default=0)
    return nn_collab.fit_as(
        NnCollabGenre,
        options.pooling,
        data,
        options,
        seed=seed,
        progress=progress,
        validation=validation,
        padded_genres=longest if options.padded_genres else 0,
    )
