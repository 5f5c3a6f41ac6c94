"""The two forms in which a model answers: factored and pairwise. Knows vectors, scores and ratings; no model by name.

A factored model's score is a dot product, which a service can rank by the million; a pairwise model computes on user
and movie together, which costs a small network a pair. Both are embedded once: movies when a catalogue is loaded, users
when a batch is answered.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, Self, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from two_tower.movie_columns import MovieColumns
from two_tower.ridge import PosteriorFactor
from two_tower.user_columns import UserColumns

_FLOATS_AT_ONCE = 16 << 20
"""Floats of a block of pairs: 64 MiB."""


@dataclass(frozen=True, slots=True)
class RatingScale:
    """The stars that the data knows: from `low` to `high` in steps of `step`."""

    low: float
    high: float
    step: float

    def clip(self, ratings: NDArray[np.float32]) -> NDArray[np.float32]:
        """Returns the ratings, moved to the nearest end of the scale where they lie outside it."""
        # As np.clip does, at half of its price for a single rating.
        return np.minimum(np.maximum(ratings, self.low), self.high)

    def round(self, ratings: NDArray[np.float32]) -> NDArray[np.float32]:
        """Returns the nearest rating that a user could have given."""
        rounded = ratings - np.float32(self.low)
        rounded /= self.step
        np.rint(rounded, out=rounded)
        rounded *= self.step
        rounded += self.low
        return self.clip(rounded)


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

    @property
    def similarity_vectors(self) -> Tensor:
        """Vectors whose cosine says how alike two movies are. float32 [M, K]."""
        return self.ranking_vectors


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


@dataclass(frozen=True, slots=True)
class PairwiseMovies:
    """The movie side of a pairwise model over one catalogue, on the model's device; row = catalogue number.

    Attributes:
        inputs: What the model needs of a movie to meet a user. float32 [M, Y]
        similarity_vectors: Vectors whose cosine says how alike two movies are. float32 [M, K]
        known: True where the checkpoint was trained on the movie; the others are COLD. bool [M], on the CPU
        movie_rows: Row of each movie in the checkpoint's tables, -1 where unknown. int64 [M], on the CPU
    """

    inputs: Tensor
    similarity_vectors: Tensor
    known: NDArray[np.bool_]
    movie_rows: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.movie_rows)


@dataclass(frozen=True, slots=True)
class PairwiseUsers:
    """The user side of a pairwise model for a batch of users, on the model's device.

    Attributes:
        inputs: What the model needs of a user to meet a movie. float32 [B, X]
    """

    inputs: Tensor

    def __len__(self) -> int:
        return len(self.inputs)


MoviesT = TypeVar("MoviesT", MovieEmbeddings, PairwiseMovies)
UsersT = TypeVar("UsersT", UserEmbeddings, PairwiseUsers)


class ServedModel(ABC, Generic[MoviesT, UsersT]):
    """What both forms promise.

    A model is immutable after loading and safe to use from several threads. `embed_users` on a batch equals
    `embed_users` on each of its users alone to 1e-5.
    """

    name: ClassVar[str]
    uses_history: ClassVar[bool] = True
    """Whether a stranger's history changes his answers."""
    uses_profile: ClassVar[bool] = True
    """Whether gender, age or occupation change his answers."""
    uses_content: ClassVar[bool] = True
    """Whether genres or year tell two movies apart that the checkpoint does not know."""

    @property
    @abstractmethod
    def device(self) -> torch.device:
        """The device that holds the weights and on which embeddings are made."""

    @property
    @abstractmethod
    def rating_scale(self) -> RatingScale | None:
        """The scale of the data, None if the data had no ratings: then only ranking is served."""

    @abstractmethod
    def embed_movies(self, movies: MovieColumns) -> MoviesT:
        """Runs the movie side over a catalogue. Movies that the checkpoint does not know are made from content."""

    @abstractmethod
    def embed_users(self, users: UserColumns, movies: MoviesT) -> UsersT:
        """Runs the user side. `users.histories` names movies by their row in `movies`."""

    @abstractmethod
    def knows_users(self, user_ids: list[str | None]) -> NDArray[np.bool_]:
        """Tells for each id whether the checkpoint holds a trained vector for it: bool [B]."""

    def link(self, raw_ratings: NDArray[np.float32]) -> NDArray[np.float32]:
        """Maps raw ratings to stars, before clipping; the identity unless a model overrides it."""
        return raw_ratings

    def count_ratings(self, users: UserColumns) -> NDArray[np.int64]:
        """Returns how many ratings of each user an answer about him rests on: int64 [B].

        Those of his history, unless a model that was trained on more of them says otherwise.
        """
        histories = users.histories
        rated = np.concatenate(([0], np.cumsum(~np.isnan(histories.ratings))))
        counts: NDArray[np.int64] = rated[histories.offsets[1:]] - rated[histories.offsets[:-1]]
        return counts

    def rating_deviations(
        self, users: UserColumns, movies: MoviesT, positions: NDArray[np.int64], numbers: NDArray[np.int64]
    ) -> NDArray[np.float32] | None:
        """Returns the predictive standard deviation of pair p, user `positions[p]` and movie `numbers[p]`, in stars.

        Of the rating that he would give, its noise included: float32 [P]. None if the model cannot tell; then the
        manifest's table by number of ratings answers.
        """
        return None

    def certainty_of(self, users: UserColumns, movies: MoviesT) -> PosteriorFactor | None:
        """Returns what `deviations_by` has to know of one user, a batch of one; None if the model tells no deviations.

        It costs about what `rating_deviations` costs, and serves as long as the user does not change.
        """
        return None

    def deviations_by(
        self, certainty: PosteriorFactor, movies: MoviesT, numbers: NDArray[np.int64]
    ) -> NDArray[np.float32]:
        """Returns what `rating_deviations` returns of the user, to 1e-5, for each movie `numbers[p]`. float32 [P]."""
        raise NotImplementedError(f"{self.name} tells no deviations")

    def history_contributions(
        self, users: UserColumns, movies: MoviesT, positions: NDArray[np.int64], numbers: NDArray[np.int64]
    ) -> NDArray[np.float32] | None:
        """Returns what each history entry of user `positions[p]` adds to the ranking score of movie `numbers[p]`.

        Laid end to end, pair after pair, in the order of the user's history: float32 [sum of history lengths]. None if
        scores are no sum over the history; then entries are judged by leaving each out in turn.
        """
        return None

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


class FactoredModel(ServedModel[MovieEmbeddings, UserEmbeddings]):
    """A model whose score is a dot product: user vector · movie vector + movie bias.

    It has two heads, rating (stars) and ranking (what orders a top-k list), which may share their vectors.
    """


class PairwiseModel(ServedModel[PairwiseMovies, PairwiseUsers]):
    """A model that computes on user and movie together.

    Inputs broadcast: [..., X] and [..., Y] give [...]. Letters: B users, M movies, X and Y widths of the inputs.
    """

    @abstractmethod
    def raw_ratings(self, users: Tensor, movies: Tensor) -> Tensor:
        """Returns what `link` maps to stars. [..., X], [..., Y] → [...]."""

    def ranking_scores(self, users: Tensor, movies: Tensor) -> Tensor:
        """Returns what orders a top-k list, the raw rating unless a model overrides it. [..., X], [..., Y] → [...]."""
        return self.raw_ratings(users, movies)

    @property
    def floats_per_pair(self) -> int:
        """Floats that one pair needs while it is computed: who asks for many pairs divides them by it."""
        return 1024

    def raw_ratings_of_all(self, users: Tensor, movies: Tensor) -> Tensor:
        """Returns the raw rating of every movie by every user. [B, X], [M, Y] → [B, M]."""
        return self._of_all(self.raw_ratings, users, movies)

    def ranking_scores_of_all(self, users: Tensor, movies: Tensor) -> Tensor:
        """Returns the ranking score of every movie for every user. [B, X], [M, Y] → [B, M]."""
        return self._of_all(self.ranking_scores, users, movies)

    def raw_ratings_of_pairs(self, users: Tensor, movies: Tensor) -> Tensor:
        """Returns the raw rating of each pair, of which there may be any number. [P, X], [P, Y] → [P]."""
        return self._of_pairs(self.raw_ratings, users, movies)

    def ranking_scores_of_pairs(self, users: Tensor, movies: Tensor) -> Tensor:
        """Returns the ranking score of each pair, of which there may be any number. [P, X], [P, Y] → [P]."""
        return self._of_pairs(self.ranking_scores, users, movies)

    def _of_pairs(self, pairwise: Callable[[Tensor, Tensor], Tensor], users: Tensor, movies: Tensor) -> Tensor:
        at_once = max(1, _FLOATS_AT_ONCE // max(1, self.floats_per_pair))
        pairs = zip(torch.split(users, at_once), torch.split(movies, at_once), strict=True)
        return torch.cat([pairwise(some, theirs) for some, theirs in pairs])  # [P]

    def _of_all(self, pairwise: Callable[[Tensor, Tensor], Tensor], users: Tensor, movies: Tensor) -> Tensor:
        at_once = max(1, _FLOATS_AT_ONCE // max(1, len(movies) * self.floats_per_pair))
        blocks = [pairwise(some[:, None], movies[None]) for some in torch.split(users, at_once)]  # [b, M] each
        return torch.cat(blocks) if blocks else users.new_zeros(0, len(movies))  # [B, M]


Model = ServedModel[Any, Any]
"""A model in either form."""
