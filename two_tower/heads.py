"""Holds what ranks and what rates over one catalogue, whatever the serving form. Knows vectors; no user and no RPC.

A factored model ranks by dot products, whose order does not hang on the batch (see `two_tower.top_k`). A pairwise model
computes every pair of a row; its scores in a batch equal those alone to 1e-5, so movies whose scores lie nearer than
that may change places, and equal scores stand by catalogue number.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from two_tower.host_heads import HostHeads
from two_tower.permitted import Permitted
from two_tower.rating_spread import RatingSpread
from two_tower.scoring import raw_pairs, stars
from two_tower.serving import (
    Model,
    MovieEmbeddings,
    PairwiseModel,
    PairwiseMovies,
    PairwiseUsers,
    ServedModel,
    UserEmbeddings,
)
from two_tower.top_k import MovieMatrix, Ranked, Scorer
from two_tower.user_columns import UserColumns

_ROWS_AT_ONCE_ON_GPU = 64
"""A row over a catalogue of thousands fills a processor; a GPU wants more of them between two launches."""


class Heads(ABC):
    """The ranking and the rating head of a model over one catalogue.

    `users` is what `embed` gave; row r of an answer is about row `rows[r]` of it. Letters: B users, R rows, M movies.

    Attributes:
        model: The model.
        movies: What its `embed_movies` gave.
        known: True where the checkpoint was trained on the movie. bool [M]
        cosines: Similarity vectors at length 1.
        ranking: What ranks by dot products; None where the model computes every pair.
        popularity: What ranks for users of whom nothing is known; None where the model does it. float32 [M]
        on_host: Does the same for users on the host, cheaper; None where the model is on a GPU or computes every pair.
    """

    ranking: MovieMatrix | None = None
    on_host: HostHeads | None = None

    def __init__(
        self,
        model: Model,
        movies: MovieEmbeddings | PairwiseMovies,
        popularity: NDArray[np.float32] | None = None,
    ) -> None:
        self.model = model
        self.popularity = popularity
        self.movies: Any = movies
        self.known = movies.known
        vectors = movies.similarity_vectors
        self.cosines = MovieMatrix.of(vectors, vectors.new_zeros(len(vectors))).cosines()

    def embed(self, users: UserColumns) -> Any:
        """Runs the user side over B users."""
        return self.model.embed_users(users, self.movies)

    @property
    def scores_dot_products(self) -> bool:
        """Whether a score takes no more than a dot product."""
        return False

    @property
    def tells_deviations(self) -> bool:
        """Whether the model itself tells how far a rating may be off: then it must see all that is known of a user."""
        return type(self.model).rating_deviations is not ServedModel.rating_deviations

    def deviations_of_pairs(
        self,
        columns: UserColumns | None,
        num_ratings: NDArray[np.int64],
        spread: RatingSpread | None,
        rows: NDArray[np.int64],
        numbers: NDArray[np.int64],
    ) -> NDArray[np.float32] | None:
        """Returns how far the rating of movie `numbers[p]` by user `rows[p]` may lie from what `rate_pairs` says.

        Args:
            columns: The users, as they were embedded; may be None if the model does not tell deviations. [B]
            num_ratings: How many ratings an answer about each user rests on. [B]
            spread: The manifest's table, asked where the model cannot tell.
            rows: User of each pair. [P]
            numbers: Movie of each pair. [P]

        Returns:
            Standard deviations in stars, float32 [P]; None if nobody can tell.
        """
        if self.model.rating_scale is None:
            return None
        deviations: NDArray[np.float32] | None = None
        if self.tells_deviations:
            assert columns is not None
            asked, positions = np.unique(rows, return_inverse=True)
            users = columns.take(asked)
            deviations = self.model.rating_deviations(users, self.movies, positions.astype(np.int64), numbers)
        if deviations is None and spread is not None:
            return spread.deviations_of(num_ratings[rows])
        return deviations

    def rank_popular(self, k: int, allowed: NDArray[np.bool_]) -> Ranked:
        """Returns the k most popular of the allowed movies, fewer if fewer are allowed."""
        assert self.popularity is not None
        return _best(self.popularity, k, allowed)

    def index_of(self, numbers: NDArray[np.int64]) -> Tensor:
        """Returns numbers of rows or movies on the device, to look tensors up by."""
        return torch.from_numpy(numbers).to(self.cosines.vectors.device)

    @abstractmethod
    def finite_rows(self, users: Any) -> NDArray[np.bool_]:
        """Tells of which users the model made numbers. bool [B]."""

    @abstractmethod
    def rank(
        self, scorer: Scorer, users: Any, rows: NDArray[np.int64], ks: Sequence[int], permitted: Permitted
    ) -> list[Ranked]:
        """Returns the `ks[r]` best permitted movies of each row, fewer if fewer are permitted."""

    @abstractmethod
    def score_pairs(
        self, scorer: Scorer, users: Any, rows: NDArray[np.int64], numbers: NDArray[np.int64]
    ) -> NDArray[np.float32]:
        """Returns what ranks movie `numbers[p]` for user `rows[p]`. float32 [P]."""

    @abstractmethod
    def rate_pairs(
        self, scorer: Scorer, users: Any, rows: NDArray[np.int64], numbers: NDArray[np.int64]
    ) -> NDArray[np.float32]:
        """Returns the rating of movie `numbers[p]` by user `rows[p]`, clipped to the scale. float32 [P]."""


class FactoredHeads(Heads):
    """Both heads of a factored model, scored exactly."""

    def __init__(self, model: Model, movies: MovieEmbeddings, popularity: NDArray[np.float32] | None = None) -> None:
        super().__init__(model, movies, popularity)
        self._rating = MovieMatrix.of(movies.rating_vectors, movies.rating_biases)
        self._ranking = self.ranking = MovieMatrix.of(movies.ranking_vectors, movies.ranking_biases).for_ranking()
        if movies.ranking_vectors.device.type == "cpu":
            self.on_host = HostHeads(model, self._rating, self._ranking)

    @property
    def scores_dot_products(self) -> bool:
        """Whether a score takes no more than a dot product: here it does not."""
        return True

    def finite_rows(self, users: UserEmbeddings) -> NDArray[np.bool_]:
        """Tells as `Heads.finite_rows` says."""
        finite = users.rating_vectors.isfinite().all(dim=-1)  # [B]
        if users.ranking_vectors is not users.rating_vectors:
            finite &= users.ranking_vectors.isfinite().all(dim=-1)
        return _on_host(finite)

    def rank(
        self, scorer: Scorer, users: UserEmbeddings, rows: NDArray[np.int64], ks: Sequence[int], permitted: Permitted
    ) -> list[Ranked]:
        """Ranks as `Heads.rank` says."""
        return scorer.rank(users.ranking_vectors[self.index_of(rows)], self._ranking, ks, permitted)

    def score_pairs(
        self, scorer: Scorer, users: UserEmbeddings, rows: NDArray[np.int64], numbers: NDArray[np.int64]
    ) -> NDArray[np.float32]:
        """Scores as `Heads.score_pairs` says."""
        return scorer.score_pairs(users.ranking_vectors, self._ranking, rows, numbers)

    def rate_pairs(
        self, scorer: Scorer, users: UserEmbeddings, rows: NDArray[np.int64], numbers: NDArray[np.int64]
    ) -> NDArray[np.float32]:
        """Rates as `Heads.rate_pairs` says."""
        return stars(self.model, scorer.score_pairs(users.rating_vectors, self._rating, rows, numbers))


class PairwiseHeads(Heads):
    """Both heads of a pairwise model; the scorer of dot products is not asked."""

    def __init__(
        self, model: PairwiseModel, movies: PairwiseMovies, popularity: NDArray[np.float32] | None = None
    ) -> None:
        super().__init__(model, movies, popularity)
        self._pairwise = model
        # On a processor one row at a time costs the same and leaves the neighbours of a row without any say.
        self._rows_at_once = 1 if model.device.type == "cpu" else _ROWS_AT_ONCE_ON_GPU

    def finite_rows(self, users: PairwiseUsers) -> NDArray[np.bool_]:
        """Tells as `Heads.finite_rows` says."""
        return _on_host(users.inputs.isfinite().all(dim=-1))

    def rank(
        self, scorer: Scorer, users: PairwiseUsers, rows: NDArray[np.int64], ks: Sequence[int], permitted: Permitted
    ) -> list[Ranked]:
        """Ranks as `Heads.rank` says."""
        inputs = users.inputs[self.index_of(rows)]  # [R, X]
        ranked = []
        for start in range(0, len(rows), self._rows_at_once):
            some = inputs[start : start + self._rows_at_once]
            scores = self._pairwise.ranking_scores_of_all(some, self.movies.inputs).cpu().numpy()  # [r, M]
            ranked += [
                _best(scores[place], ks[start + place], permitted.of_row(start + place)) for place in range(len(scores))
            ]
        return ranked

    def score_pairs(
        self, scorer: Scorer, users: PairwiseUsers, rows: NDArray[np.int64], numbers: NDArray[np.int64]
    ) -> NDArray[np.float32]:
        """Scores as `Heads.score_pairs` says."""
        mine, theirs = users.inputs[self.index_of(rows)], self.movies.inputs[self.index_of(numbers)]  # [P, X], [P, Y]
        scores: NDArray[np.float32] = self._pairwise.ranking_scores_of_pairs(mine, theirs).cpu().numpy()
        return scores

    def rate_pairs(
        self, scorer: Scorer, users: PairwiseUsers, rows: NDArray[np.int64], numbers: NDArray[np.int64]
    ) -> NDArray[np.float32]:
        """Rates as `Heads.rate_pairs` says."""
        return stars(self.model, raw_pairs(self.model, users, self.movies, rows, numbers).cpu().numpy())


def heads_of(
    model: Model, movies: MovieEmbeddings | PairwiseMovies, popularity: NDArray[np.float32] | None = None
) -> Heads:
    """Returns the heads of a model over the movies that it embedded, and how popular these are if that is known."""
    if isinstance(model, PairwiseModel):
        assert isinstance(movies, PairwiseMovies)
        return PairwiseHeads(model, movies, popularity)
    assert isinstance(movies, MovieEmbeddings)
    return FactoredHeads(model, movies, popularity)


def _best(scores: NDArray[np.float32], k: int, allowed: NDArray[np.bool_]) -> Ranked:
    """Returns the k best allowed movies of a row, equal scores by catalogue number; all that are at least the kth."""
    candidates = np.flatnonzero(allowed)  # [C], ascending
    if k < len(candidates):
        kth = np.partition(scores[candidates], len(candidates) - k)[len(candidates) - k]
        candidates = candidates[scores[candidates] >= kth]
    best = candidates[np.argsort(-scores[candidates], kind="stable")[:k]]
    return Ranked(best, scores[best])


def _on_host(flags: Tensor) -> NDArray[np.bool_]:
    on_host: NDArray[np.bool_] = flags.cpu().numpy()
    return on_host
