"""The collaborative filtering network: ids to embeddings, one hidden layer, stars through a sigmoid.

A published notebook's network, in two forms: without genres (`nn-collab`) and with (`nn-collab-genre`).
`trainer.fits.nn_collab` says how it is trained.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from two_tower.errors import MismatchedCheckpointError
from two_tower.features import MovieFeatures, Range, UserFeatures
from two_tower.models.encoded_pairwise import EncodedPairwise
from two_tower.movie_columns import MovieColumns
from two_tower.serving import RatingScale

POOLINGS = ("none", "sum", "mean", "concat")
HIDDEN_WIDTH = 128
"""The notebook's."""


@dataclass(frozen=True, slots=True)
class Config:
    """What the network is, beside its weights.

    Attributes:
        user_width: Width of a user's embedding.
        movie_width: Width of a movie's embedding.
        genre_width: Width of a genre's embedding, 0 without genres.
        pooling: How a movie's genres become one vector: none, sum, mean, or concat, a place for each genre.
        padded_genres: 0, or the notebook's bug: every list of genres is filled up to this length with the first genre
            of the vocabulary, as if the movie were of it so many times.
        low: Where the sigmoid starts.
        high: Where the sigmoid ends.
        rounded: Whether ratings are rounded to the steps of the scale.
        num_users: Rows of the user vocabulary.
        num_movies: Rows of the movie vocabulary.
        ages: Range of the age, which the network does not look at.
        years: Range of the year of release, which the network does not look at.
        scale: Rating scale of the data.
    """

    user_width: int
    movie_width: int
    genre_width: int
    pooling: str
    padded_genres: int
    low: float
    high: float
    rounded: bool
    num_users: int
    num_movies: int
    ages: Range
    years: Range
    scale: RatingScale

    def __post_init__(self) -> None:
        problems = []
        if not all(0 < width <= 4096 for width in (self.user_width, self.movie_width)):
            problems.append("config.user_width and config.movie_width are from 1 to 4096")
        if self.pooling not in POOLINGS:
            problems.append(f"config.pooling is {self.pooling!r}; it is one of {', '.join(POOLINGS)}")
        if not (self.genre_width == 0 if self.pooling == "none" else 0 < self.genre_width <= 4096):
            problems.append("config.genre_width is 0 where pooling is 'none', else from 1 to 4096")
        if self.padded_genres < 0:
            problems.append("config.padded_genres is not below 0")
        if not self.low < self.high:
            problems.append("config.low is below config.high")
        if problems:
            raise MismatchedCheckpointError(problems)


class CollabNetwork(nn.Module):
    """Embeddings and two layers, the first in two parts. G = genres, H = hidden width."""

    def __init__(self, config: Config, num_genres: int) -> None:
        super().__init__()
        self.user_table = nn.Parameter(torch.empty(config.num_users, config.user_width))
        self.movie_table = nn.Parameter(torch.empty(config.num_movies, config.movie_width))
        self.genre_table = nn.Parameter(torch.empty(num_genres, config.genre_width))
        genre_inputs = config.genre_width * (num_genres if config.pooling == "concat" else 1)
        self.user_layer = nn.Linear(config.user_width, HIDDEN_WIDTH)
        self.movie_layer = nn.Linear(config.movie_width + genre_inputs, HIDDEN_WIDTH, bias=False)
        self.output = nn.Linear(HIDDEN_WIDTH, 1)
        self._pooling = config.pooling
        self._padded_genres = config.padded_genres

    def user_part(self, ids: Tensor) -> Tensor:
        """Returns a user's part of the hidden layer from his embedding. [B, user_width] → [B, H]."""
        return torch.as_tensor(self.user_layer(ids))

    def movie_part(self, movies: Tensor) -> Tensor:
        """Returns a movie's part of the hidden layer from what `movie_vectors` gave. [B, V] → [B, H]."""
        return torch.as_tensor(self.movie_layer(movies))

    def genre_weights(self, shares: Tensor) -> Tensor:
        """Returns how often each genre counts: once, or by its share in the mean, and more if padded. [B, G]."""
        flags = (shares > 0).to(shares.dtype)  # [B, G]
        if self._padded_genres and flags.shape[1] > 1:
            flags[:, 1] += (self._padded_genres - flags.sum(dim=-1)).clamp(min=0)
        if self._pooling == "mean":
            return flags / flags.sum(dim=-1, keepdim=True).clamp(min=1)
        return flags

    def movie_vectors(self, ids: Tensor, shares: Tensor) -> Tensor:
        """Puts the genres beside the embedding: [B, movie_width], shares of each genre [B, G] → [B, V]."""
        if self._pooling == "none":
            return ids
        weights = self.genre_weights(shares)  # [B, G]
        if self._pooling != "concat":
            return torch.cat([ids, weights @ self.genre_table], dim=-1)  # [B, movie_width + genre_width]
        places = weights[:, :, None] * self.genre_table  # [B, G, genre_width]
        return torch.cat([ids, places.flatten(1)], dim=-1)  # [B, movie_width + G · genre_width]

    def meet(self, users: Tensor, movies: Tensor) -> Tensor:
        """Returns what the sigmoid takes. [..., H], [..., H] → [...]."""
        hidden = torch.relu(users + movies)  # [..., H]
        # A product rather than the layer: the layer would copy a broadcast pair to lie in a row.
        return (hidden @ self.output.weight[0]) + self.output.bias[0]


class NnCollab(EncodedPairwise[Config, CollabNetwork]):
    """The network behind the pairwise form."""

    name: ClassVar[str] = "nn-collab"
    uses_profile: ClassVar[bool] = False
    uses_content: ClassVar[bool] = False
    config_class: ClassVar[type[Config]] = Config

    @classmethod
    def make_network(cls, config: Config, vocabularies: Mapping[str, list[str]]) -> CollabNetwork:
        """Returns a network with a table row for each word of the vocabularies."""
        if (config.pooling != "none") != cls.uses_content:
            raise MismatchedCheckpointError([f"config.pooling is {config.pooling!r}, which is not {cls.name}"])
        return CollabNetwork(config, len(vocabularies["genres"]))

    def raw_ratings(self, users: Tensor, movies: Tensor) -> Tensor:
        """Runs what comes after the parts of the hidden layer."""
        return self._network.meet(users, movies)

    @property
    def floats_per_pair(self) -> int:
        """The hidden layer before and after its ReLU."""
        return 2 * HIDDEN_WIDTH

    def link(self, raw_ratings: NDArray[np.float32]) -> NDArray[np.float32]:
        """Squashes to stars, and rounds them if that is what the checkpoint was made for."""
        low, high = self._config.low, self._config.high
        stars = (low + (high - low) / (1 + np.exp(-np.clip(raw_ratings, -80, 80)))).astype(np.float32)
        return self._config.scale.round(stars) if self._config.rounded else stars

    def _user_inputs(self, features: UserFeatures) -> Tensor:
        return self._network.user_part(self._network.user_table[self._to_device(features.rows)])  # [B, H]

    def _movie_inputs(self, features: MovieFeatures, movies: MovieColumns) -> tuple[Tensor, Tensor]:
        ids = self._network.movie_table[self._to_device(features.rows)]  # [M, movie_width]
        vectors = self._network.movie_vectors(ids, self._to_device(features.genres))  # [M, V]
        return self._network.movie_part(vectors), vectors


class NnCollabGenre(NnCollab):
    """The same with genres: a new movie is told by them."""

    name: ClassVar[str] = "nn-collab-genre"
    uses_content: ClassVar[bool] = True
