"""Cuts a data set down to the users and movies that have interactions, in dense rows. Knows no model."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trainer.dataset import Dataset, Interactions
from two_tower.features import FeatureEncoder
from two_tower.movie_columns import MovieColumns
from two_tower.user_columns import Histories, Profiles


@dataclass(frozen=True, slots=True)
class TrainedRows:
    """The part of a data set that has interactions.

    Attributes:
        encoder: Row r + 1 of its vocabularies is row r here.
        interactions: In the rows of this object.
        profiles: Of its users.
        movies: Its movies.
    """

    encoder: FeatureEncoder
    interactions: Interactions
    profiles: Profiles
    movies: MovieColumns

    @property
    def num_users(self) -> int:
        """Users, each with an interaction."""
        return len(self.profiles)

    @property
    def num_movies(self) -> int:
        """Movies, each with an interaction."""
        return len(self.movies)

    @classmethod
    def of(cls, data: Dataset) -> "TrainedRows":
        """Numbers users and movies anew, in their order."""
        rows = data.interactions
        users, user_rows = np.unique(rows.user_rows, return_inverse=True)
        movies, movie_rows = np.unique(rows.movie_rows, return_inverse=True)
        encoder = FeatureEncoder.of(
            [data.user_ids[row] for row in users],
            [data.movies.movie_ids[row] for row in movies],
            data.profiles,
            data.movies,
        )
        return cls(
            encoder,
            Interactions(user_rows.astype(np.int32), movie_rows.astype(np.int32), rows.ratings, rows.event_times_ms),
            Profiles(
                [data.profiles.genders[row] for row in users],
                data.profiles.ages[users],
                [data.profiles.occupations[row] for row in users],
            ),
            MovieColumns(
                [data.movies.movie_ids[row] for row in movies],
                [data.movies.titles[row] for row in movies],
                data.movies.years[movies],
                [data.movies.genres[row] for row in movies],
            ),
        )

    def whole_histories(self) -> Histories:
        """Returns all interactions of every user, newest first, nothing trimmed; a movie's number is its row here."""
        rows = self.interactions
        order = np.lexsort((-rows.movie_rows.astype(np.int64), -rows.event_times_ms, rows.user_rows))
        offsets = np.searchsorted(rows.user_rows[order], np.arange(self.num_users + 1)).astype(np.int64)
        return Histories(
            offsets,
            rows.movie_rows[order],
            rows.ratings[order],
            rows.event_times_ms[order],
            np.ones(self.num_users, np.bool_),
        )


def with_unknown_row(table: NDArray[np.generic]) -> Tensor:
    """Returns the table as float32 with a row of zeros put before it: the row that an encoder gives the unknown."""
    rows = np.asarray(table, np.float32)
    return torch.from_numpy(np.concatenate([np.zeros((1, *rows.shape[1:]), np.float32), rows]))
