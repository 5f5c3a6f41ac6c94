"""Gives a network the rated rows of a data set as tensors. Knows rows of the data set; knows no embedding row."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from trainer.dataset import Dataset, Interactions
from trainer.errors import DataError
from trainer.fits.pair_training import split_validation
from two_tower.features import FeatureEncoder
from two_tower.serving import RatingScale


@dataclass(frozen=True, slots=True)
class RatedPairs:
    """n rows with a rating.

    Attributes:
        users: User rows of the data set. int64 [n]
        movies: Movie rows of the data set. int64 [n]
        ratings: Stars. float32 [n]
    """

    users: Tensor
    movies: Tensor
    ratings: Tensor

    @classmethod
    def of(cls, rows: Interactions) -> "RatedPairs":
        """Returns the rows that have a rating, in their order."""
        rated = np.flatnonzero(~np.isnan(rows.ratings))
        columns = (rows.user_rows[rated], rows.movie_rows[rated])
        users, movies = (torch.from_numpy(column.astype(np.int64)) for column in columns)
        return cls(users, movies, torch.from_numpy(rows.ratings[rated].astype(np.float32)))

    def __len__(self) -> int:
        return len(self.users)

    def take(self, positions: Tensor) -> "RatedPairs":
        """Returns the rows at these positions."""
        return RatedPairs(self.users[positions], self.movies[positions], self.ratings[positions])


def require_scale(data: Dataset, model: str) -> RatingScale:
    """Returns the data's rating scale.

    Raises:
        DataError: The data has no ratings, or no rows.
    """
    if data.scale is None or not np.any(~np.isnan(data.interactions.ratings)):
        raise DataError(f"{model} learns from ratings, and {data.name} has none to train on")
    return data.scale


def divide(
    data: Dataset, validation: Interactions | None, share: float, rng: np.random.Generator
) -> tuple[RatedPairs, RatedPairs]:
    """Returns the rows to learn from and those to choose by: the given ones, else a share of the training rows."""
    pairs = RatedPairs.of(data.interactions)
    if validation is not None:
        return pairs, RatedPairs.of(validation)
    learn, choose = split_validation(len(pairs), share, rng)
    return pairs.take(torch.from_numpy(learn)), pairs.take(torch.from_numpy(choose))


def encoder_of(data: Dataset) -> FeatureEncoder:
    """Returns an encoder in which every user and movie with a training row has a row of its own."""
    rows = data.interactions
    return FeatureEncoder.of(
        [data.user_ids[row] for row in np.unique(rows.user_rows)],
        [data.movies.movie_ids[row] for row in np.unique(rows.movie_rows)],
        data.profiles,
        data.movies,
    )
