"""The dot product model whose movie vectors and biases depend on genres too, a published notebook's.

Movie vector q_i + Σ_g q_i⊙q_g, movie bias b_i + Σ_g b_g. A movie that the checkpoint does not know has the mean q of
the trained ones and its own genres. See `trainer.fits.dot_bias_genre` for how it is trained.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from two_tower.errors import MismatchedCheckpointError
from two_tower.features import FeatureEncoder, Vocabulary, bag_shares
from two_tower.models.factor_tables import FactorConfig, FactorTables
from two_tower.models.table_model import TableConfig
from two_tower.movie_columns import MovieColumns

POOLINGS = ("sum", "mean", "concat")


@dataclass(frozen=True, slots=True, kw_only=True)
class GenreFactorConfig(FactorConfig):
    """What the model is, beside its tables.

    Attributes:
        pooling: How a movie's genres come together: "sum" (the notebook's), "mean", or "concat": genres have
            coordinates of their own, half of `factors`, in which their mean stands.
        padded_genres: 0, or the notebook's bug: every list of genres is filled up to this length with the first genre
            of the vocabulary, as if the movie were of it so many times.
    """

    pooling: str
    padded_genres: int

    def __post_init__(self) -> None:
        # super() finds no class in a dataclass with slots.
        FactorConfig.__post_init__(self)
        problems = []
        if self.pooling not in POOLINGS:
            problems.append(f"config.pooling is {self.pooling!r}; it is one of {', '.join(POOLINGS)}")
        if self.pooling == "concat" and self.factors % 2:
            problems.append("config.factors is even where config.pooling is 'concat'")
        if self.padded_genres < 0:
            problems.append("config.padded_genres is not below 0")
        if problems:
            raise MismatchedCheckpointError(problems)

    @property
    def genre_factors(self) -> int:
        """Coordinates of a genre's vector."""
        return self.factors // 2 if self.pooling == "concat" else self.factors


def genre_weights(
    genres: Sequence[Sequence[str]], vocabulary: Vocabulary, pooling: str, padded_genres: int
) -> NDArray[np.float32]:
    """Returns how much each row of the genre table counts in each movie; row 0, the unknown genre, not at all.

    float32 [M, G]
    """
    lengths = np.fromiter((len(bag) for bag in genres), np.int64, len(genres))
    counts = bag_shares(genres, vocabulary) * np.maximum(lengths, 1).astype(np.float32)[:, None]  # [M, G]
    counts[:, 0] = 0
    if padded_genres and len(vocabulary) > 1:
        counts[:, 1] += np.maximum(padded_genres - lengths, 0)
    if pooling != "sum":
        counts /= np.maximum(counts.sum(axis=1, keepdims=True), 1)
    return counts


class DotBiasGenre(FactorTables):
    """The tables of `FactorTables` and `genres.vectors` [G, D], `genres.biases` [G]; row g is word g of `genres`.

    With "concat" `movies.vectors` and `genres.vectors` are half as wide as `users.vectors`.
    """

    name: ClassVar[str] = "dot-bias-genre"
    config_class: ClassVar[type[TableConfig]] = GenreFactorConfig
    uses_content: ClassVar[bool] = True

    @classmethod
    def tensor_shapes(cls, config: FactorConfig, encoder: FeatureEncoder) -> dict[str, tuple[int, ...]]:
        """Returns the shapes of the six tables."""
        assert isinstance(config, GenreFactorConfig)
        genres, width = len(encoder.genres), config.genre_factors
        shapes = FactorTables.tensor_shapes(config, encoder)
        shapes["movies.vectors"] = (len(encoder.movies), width)
        return shapes | {"genres.vectors": (genres, width), "genres.biases": (genres,)}

    def _movie_factors(self, index: Tensor, movies: MovieColumns) -> tuple[Tensor, Tensor]:
        config = self._config
        assert isinstance(config, GenreFactorConfig)
        weights = self._to_device(
            genre_weights(movies.genres, self._encoder.genres, config.pooling, config.padded_genres)
        )  # [M, G]
        own = self._tensors["movies.vectors"][index]  # [M, D]
        of_genres = weights @ self._tensors["genres.vectors"]  # [M, D]
        biases = self._tensors["movies.biases"][index] + weights @ self._tensors["genres.biases"]  # [M]
        if config.pooling == "concat":
            return torch.cat([own, of_genres], dim=-1), biases
        return own * (1 + of_genres), biases
