"""A dot product of two table rows plus biases: what matrix factorisations serve, however they were trained.

A user or movie that the checkpoint does not know has row 0, the mean of the trained rows. History, profile and, here,
genres and year say nothing to these models.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from two_tower.errors import MismatchedCheckpointError
from two_tower.features import FeatureEncoder
from two_tower.models.table_model import TableConfig, TableModel
from two_tower.movie_columns import MovieColumns
from two_tower.serving import FactoredModel, MovieEmbeddings, UserEmbeddings
from two_tower.user_columns import UserColumns


@dataclass(frozen=True, slots=True, kw_only=True)
class FactorConfig(TableConfig):
    """What a factorisation is, beside its tables.

    Attributes:
        factors: Coordinates of a vector.
        global_mean: Added to every raw rating.
        floor: Raw ratings go through a sigmoid into the stars from `floor` to `ceiling`; None leaves them as they are.
        ceiling: See `floor`.
        rounded: Whether the rating served is the nearest that a user could give.
    """

    factors: int
    global_mean: float
    floor: float | None
    ceiling: float | None
    rounded: bool

    def __post_init__(self) -> None:
        problems = []
        if not 0 < self.factors <= 4096:
            problems.append("config.factors is from 1 to 4096")
        if self.scale is None:
            problems.append("config.scale is missing: a factorisation of ratings has one")
        if (self.floor is None) != (self.ceiling is None):
            problems.append("config.floor and config.ceiling are both given or both null")
        if self.floor is not None and self.ceiling is not None and not self.floor < self.ceiling:
            problems.append("config.floor lies below config.ceiling")
        if problems:
            raise MismatchedCheckpointError(problems)


class FactorTables(TableModel[MovieEmbeddings, UserEmbeddings, FactorConfig], FactoredModel):
    """The tables `users.vectors` [U, D], `users.biases` [U], `movies.vectors` [I, D], `movies.biases` [I].

    Row r is word r of the vocabulary `users` or `movies`; row 0 is the unknown's. Movies sorted by `movies.biases`,
    cosines between rows of `movies.vectors` and the rows themselves, where D is 2, are the usual things to look at.

    The ranking score leaves the user's bias out, which moves all his movies alike, and the link, which keeps order: so
    what the cosine of two movies compares are the trained vectors and nothing else.
    """

    config_class: ClassVar[type[TableConfig]] = FactorConfig
    uses_history: ClassVar[bool] = False
    uses_profile: ClassVar[bool] = False
    uses_content: ClassVar[bool] = False

    @classmethod
    def tensor_shapes(cls, config: FactorConfig, encoder: FeatureEncoder) -> dict[str, tuple[int, ...]]:
        """Returns the shapes of the four tables."""
        users, movies = len(encoder.users), len(encoder.movies)
        return {
            "users.vectors": (users, config.factors),
            "users.biases": (users,),
            "movies.vectors": (movies, config.factors),
            "movies.biases": (movies,),
        }

    @torch.no_grad()
    def embed_movies(self, movies: MovieColumns) -> MovieEmbeddings:
        """Looks vectors and biases up."""
        index, known, rows = self._rows_of(movies)
        vectors, biases = self._movie_factors(index, movies)
        ones = vectors.new_ones(len(movies), 1)
        rating_vectors = torch.cat([vectors, ones], dim=-1)  # [M, D + 1]
        return MovieEmbeddings(rating_vectors, biases + self._config.global_mean, vectors, biases, known, rows)

    @torch.no_grad()
    def embed_users(self, users: UserColumns, movies: MovieEmbeddings) -> UserEmbeddings:
        """Looks vectors and biases up."""
        rows = self._to_device(self._encoder.users.rows_of(users.user_ids))
        vectors, biases = self._tensors["users.vectors"][rows], self._tensors["users.biases"][rows]
        return UserEmbeddings(torch.cat([vectors, biases[:, None]], dim=-1), vectors)

    def link(self, raw_ratings: NDArray[np.float32]) -> NDArray[np.float32]:
        """Squashes raw ratings into stars where the config says so, and rounds them where it says so."""
        config = self._config
        stars = raw_ratings
        if config.floor is not None and config.ceiling is not None:
            # The same as the sigmoid, without an overflow far below 0.
            stars = (config.floor + (config.ceiling - config.floor) * 0.5 * (1 + np.tanh(raw_ratings / 2))).astype(
                np.float32
            )
        return config.scale.round(stars) if config.rounded and config.scale is not None else stars

    def _movie_factors(self, index: Tensor, movies: MovieColumns) -> tuple[Tensor, Tensor]:
        """Returns the vector and the bias of each movie. [M, D], [M]."""
        return self._tensors["movies.vectors"][index], self._tensors["movies.biases"][index]
