"""The forms in which a model answers. Knows vectors, scores and ratings; knows no model by name, no RPC and no file."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from two_tower.movie_columns import MovieColumns
from two_tower.user_columns import UserColumns


@dataclass(frozen=True, slots=True)
class RatingScale:
    """The stars that the data knows: from `low` to `high` in steps of `step`."""

    low: float
    high: float
    step: float

    def clip(self, ratings: NDArray[np.float32]) -> NDArray[np.float32]:
        """Returns the ratings, moved to the nearest end of the scale where they lie outside it."""
        return np.clip(ratings, self.low, self.high)

    def round(self, ratings: NDArray[np.float32]) -> NDArray[np.float32]:
        """Returns the nearest rating that a user could have given."""
        steps = np.round((ratings - self.low) / self.step)
        return self.clip((self.low + steps * self.step).astype(np.float32))


@dataclass(frozen=True, slots=True)
class MovieEmbeddings:
    """The movie side of a factored model over one catalogue, on the model's device; row = catalogue number.

    A model whose ranking score is its unclipped rating gives the same tensors twice.

    Attributes:
        rating_vectors: float32 [M, R]
        rating_biases: Global mean and movie bias together. float32 [M]
        ranking_vectors: float32 [M, K]
        ranking_biases: float32 [M]
        known: True where the checkpoint was trained on the movie; the others are COLD. bool [M], on the CPU
        movie_rows: Row of each movie in the checkpoint's tables, -1 where unknown. int64 [M], on the CPU
    """

    rating_vectors: Tensor
    rating_biases: Tensor
    ranking_vectors: Tensor
    ranking_biases: Tensor
    known: NDArray[np.bool_]
    movie_rows: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.movie_rows)


@dataclass(frozen=True, slots=True)
class UserEmbeddings:
    """The user side of a factored model for a batch of users, on the model's device.

    Attributes:
        rating_vectors: float32 [B, R]
        ranking_vectors: float32 [B, K]
    """

    rating_vectors: Tensor
    ranking_vectors: Tensor

    def __len__(self) -> int:
        return len(self.rating_vectors)


class FactoredModel(ABC):
    """A model whose score is a dot product: user vector · movie vector + movie bias.

    It has two heads, rating (stars) and ranking (what orders a top-k list), which may share their vectors. A model is
    immutable after loading and safe to use from several threads. `embed_users` on a batch equals `embed_users` on
    each of its users alone to 1e-5.
    """

    name: ClassVar[str]

    @property
    @abstractmethod
    def device(self) -> torch.device:
        """The device that holds the weights and on which embeddings are made."""

    @property
    @abstractmethod
    def rating_scale(self) -> RatingScale | None:
        """The scale of the data, None if the data had no ratings: then only ranking is served."""

    @abstractmethod
    def embed_movies(self, movies: MovieColumns) -> MovieEmbeddings:
        """Runs the movie tower over a catalogue. Movies that the checkpoint does not know are made from content."""

    @abstractmethod
    def embed_users(self, users: UserColumns, movies: MovieEmbeddings) -> UserEmbeddings:
        """Runs the user tower. `users.histories` names movies by their row in `movies`."""

    @abstractmethod
    def knows_users(self, user_ids: list[str | None]) -> NDArray[np.bool_]:
        """Tells for each id whether the checkpoint holds a trained vector for it: bool [B]."""

    def link(self, raw_ratings: NDArray[np.float32]) -> NDArray[np.float32]:
        """Maps dot products of the rating head to stars, before clipping; the identity unless a model overrides it."""
        return raw_ratings

    @abstractmethod
    def config(self) -> dict[str, Any]:
        """Returns what, with `tensors` and `vocabularies`, rebuilds the model; goes into the manifest as JSON."""

    @abstractmethod
    def tensors(self) -> dict[str, Tensor]:
        """Returns the weights by name, contiguous and on the CPU; goes into weights.safetensors."""

    @abstractmethod
    def vocabularies(self) -> dict[str, list[str]]:
        """Returns the string vocabularies by name ("users", "movies", "genres", ...); row of a table = position."""

    @classmethod
    @abstractmethod
    def restore(
        cls,
        config: Mapping[str, Any],
        tensors: Mapping[str, Tensor],
        vocabularies: Mapping[str, list[str]],
        device: torch.device,
    ) -> Self:
        """Rebuilds a model strictly.

        Raises:
            two_tower.checkpoint.CheckpointError: A tensor, field or vocabulary is missing, superfluous or misshapen;
                names each.
        """
