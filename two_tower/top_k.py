"""Finds the best movies and scores pairs, exactly. Knows vectors, masks and catalogue numbers; no user and no RPC.

Two implementations of one interface give the same answers: numpy is cheaper for few rows, torch for many or on a GPU.
Both take their candidates from products of few bits, float32 here, with a margin that covers the rounding error, and
order them by products summed in float64 in a fixed order: so a row is answered alike alone and in a batch, and movies
with equal vectors have equal scores and stand by catalogue number.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from two_tower.hardware import multiplies_bf16
from two_tower.narrow_movies import NarrowMovies
from two_tower.permitted import Permitted

_FLOAT32_ULP = 2.0**-23
_MAX_GATHERED_FLOATS = 8_000_000
"""Gathered movie vectors at once, in float64 64 MB."""


@dataclass(frozen=True, slots=True)
class Ranked:
    """The best movies of one row, best first; equal scores by catalogue number. int64 [k] and float32 [k]."""

    numbers: NDArray[np.int64]
    scores: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class MovieMatrix:
    """Movie vectors and biases of one head on the model's device. Letters: M movies, D dimensions.

    Attributes:
        vectors: float32 [M, D]
        biases: float32 [M]
        reach: Largest norm of a vector and largest absolute bias: they bound the rounding error of a score.
        narrow: The same in bfloat16, where that is quicker to find candidates by.
    """

    vectors: Tensor
    biases: Tensor
    reach: tuple[float, float]
    narrow: NarrowMovies | None = None

    @classmethod
    def of(cls, vectors: Tensor, biases: Tensor) -> "MovieMatrix":
        """Measures the vectors."""
        if len(vectors) == 0:
            return cls(vectors, biases, (0.0, 0.0))
        return cls(vectors, biases, (float(vectors.norm(dim=-1).max()), float(biases.abs().max())))

    def for_ranking(self) -> "MovieMatrix":
        """Returns the same with what quickens lists on this hardware."""
        device = self.vectors.device
        return self.narrowed() if device.type == "cpu" and multiplies_bf16(device) else self

    def narrowed(self) -> "MovieMatrix":
        """Returns the same with its vectors in bfloat16 beside them, half as many bytes more."""
        return replace(self, narrow=NarrowMovies.of(self.vectors, self.biases))

    def cosines(self) -> "MovieMatrix":
        """Returns the vectors at length 1 without biases; a vector of length 0 stays so."""
        units = torch.nn.functional.normalize(self.vectors, dim=-1)  # [M, D]
        return MovieMatrix.of(units.contiguous(), torch.zeros_like(self.biases))

    def margin(self, user_norms: NDArray[np.float64]) -> NDArray[np.float64]:
        """Bounds how far a float32 score may lie from the true one, for user vectors of these norms. [B].

        A sum of n rounded products errs by at most n ulp of the sum of their magnitudes (Higham, Accuracy and
        Stability of Numerical Algorithms, 3.1), which Cauchy-Schwarz bounds by the product of the norms; the factor 2
        is for two scores that err in opposite directions.
        """
        norm, bias = self.reach
        terms = self.vectors.shape[-1] + 2
        bounds: NDArray[np.float64] = 2 * terms * _FLOAT32_ULP * (user_norms * norm + bias)
        return bounds


class Scorer(Protocol):
    """Ranks movies and scores pairs."""

    def rank(self, users: Tensor, movies: MovieMatrix, ks: Sequence[int], permitted: Permitted) -> list[Ranked]:
        """Returns the `ks[b]` best permitted movies of each row, fewer if fewer are permitted.

        Args:
            users: User vectors on the device of the matrix. float32 [B, D]
            movies: What is ranked.
            ks: Movies wanted, at least 1. [B]
            permitted: What may be answered.
        """
        ...

    def score_pairs(
        self, users: Tensor, movies: MovieMatrix, positions: NDArray[np.int64], numbers: NDArray[np.int64]
    ) -> NDArray[np.float32]:
        """Returns the score of row `positions[p]` of the users and movie `numbers[p]`. float32 [P]."""
        ...


class NumpyScorer:
    """Scores on the CPU, row by row."""

    def rank(self, users: Tensor, movies: MovieMatrix, ks: Sequence[int], permitted: Permitted) -> list[Ranked]:
        """Ranks as `Scorer.rank` says."""
        user_vectors = users.cpu().numpy()  # [B, D]
        vectors, biases = movies.vectors.cpu().numpy(), movies.biases.cpu().numpy()  # [M, D], [M]
        scores = user_vectors @ vectors.T + biases  # [B, M]
        margins = movies.margin(np.linalg.norm(user_vectors.astype(np.float64), axis=-1))  # [B]
        answers = []
        for b, k in enumerate(ks):
            scores[b, ~permitted.of_row(b)] = -np.inf
            candidates = candidates_of(scores[b], float(margins[b]), k)
            answers.append(best_of(user_vectors[b], vectors, biases, candidates, k))
        return answers

    def score_pairs(
        self, users: Tensor, movies: MovieMatrix, positions: NDArray[np.int64], numbers: NDArray[np.int64]
    ) -> NDArray[np.float32]:
        """Scores as `Scorer.score_pairs` says."""
        user_vectors = users.cpu().numpy()  # [B, D]
        vectors, biases = movies.vectors.cpu().numpy(), movies.biases.cpu().numpy()  # [M, D], [M]
        scores = np.empty(len(positions), np.float32)  # [P]
        for some in _chunks(len(positions), vectors.shape[-1]):
            scores[some] = sum_exactly(user_vectors[positions[some]], vectors[numbers[some]], biases[numbers[some]])
        return scores


class TorchScorer:
    """Scores on the device of the matrix, all rows at once."""

    def rank(self, users: Tensor, movies: MovieMatrix, ks: Sequence[int], permitted: Permitted) -> list[Ranked]:
        """Ranks as `Scorer.rank` says."""
        device = users.device
        num_movies = len(movies.vectors)
        masks = torch.from_numpy(permitted.masks).to(device)  # [F, M]
        allowed = masks[torch.from_numpy(permitted.mask_of_row).to(device)]  # [B, M]
        excluded_rows = torch.from_numpy(permitted.excluded_rows).to(device)  # [X]
        allowed[excluded_rows, torch.from_numpy(permitted.excluded_numbers).to(device)] = False
        counts = allowed.sum(dim=-1)  # [B]
        wanted = torch.minimum(torch.tensor(ks, device=device), counts)  # [B]
        most = min(num_movies, max(1, int(wanted.max()))) if num_movies else 0
        if most == 0:
            return [_nothing() for _ in ks]
        scores = torch.addmm(movies.biases, users, movies.vectors.T)  # [B, M]
        scores.masked_fill_(~allowed, -torch.inf)
        norms = users.double().norm(dim=-1).cpu().numpy()
        margins = torch.from_numpy(movies.margin(norms).astype(np.float32)).to(device)  # [B]
        best = scores.topk(most, dim=-1).values  # [B, most]
        kth = best.gather(-1, (wanted - 1).clamp(min=0).unsqueeze(-1)).squeeze(-1)  # [B]
        near = allowed & (scores >= (kth - margins).unsqueeze(-1))  # [B, M]
        num_candidates = int(near.sum(dim=-1).max())
        if num_candidates == 0:
            return [_nothing() for _ in ks]
        candidates = scores.topk(num_candidates, dim=-1).indices.sort(dim=-1).values  # [B, C], ascending
        exact = torch.empty(candidates.shape, dtype=torch.float32, device=device)  # [B, C]
        for some in _chunks(len(ks), num_candidates * users.shape[-1]):
            exact[some] = _sum_exactly_torch(users[some].unsqueeze(-2), movies, candidates[some])
        exact.masked_fill_(~near.gather(-1, candidates), -torch.inf)
        ordered = exact.sort(dim=-1, descending=True, stable=True)
        numbers = candidates.gather(-1, ordered.indices).cpu().numpy()  # [B, C]
        values = ordered.values.cpu().numpy()  # [B, C]
        lengths = wanted.cpu().tolist()
        return [Ranked(numbers[b, :length], values[b, :length]) for b, length in enumerate(lengths)]

    def score_pairs(
        self, users: Tensor, movies: MovieMatrix, positions: NDArray[np.int64], numbers: NDArray[np.int64]
    ) -> NDArray[np.float32]:
        """Scores as `Scorer.score_pairs` says."""
        user_index = torch.from_numpy(positions).to(users.device)  # [P]
        movie_index = torch.from_numpy(numbers).to(users.device)  # [P]
        scores = torch.empty(len(positions), dtype=torch.float32, device=users.device)  # [P]
        for some in _chunks(len(positions), users.shape[-1]):
            scores[some] = _sum_exactly_torch(users[user_index[some]], movies, movie_index[some])
        on_host: NDArray[np.float32] = scores.cpu().numpy()
        return on_host


def candidates_of(scores: NDArray[np.float32], margin: float, k: int) -> NDArray[np.int64]:
    """Returns the movies among which the k best are for sure, all that may be answered if they are no more, ascending.

    Args:
        scores: float32 products, -inf of a movie that may not be answered. [M]
        margin: Bound of how far apart two scores may be that are equal in truth.
        k: Movies wanted, at least 1.
    """
    kth = np.partition(scores, -k)[-k] if k < len(scores) else -np.inf
    return np.flatnonzero(scores >= kth - margin if kth > -np.inf else scores > kth)


def best_of(
    user: NDArray[np.float32],
    vectors: NDArray[np.float32],
    biases: NDArray[np.float32],
    candidates: NDArray[np.int64],
    k: int,
) -> Ranked:
    """Returns the k best of some movies with the scores that every list has, fewer if they are fewer.

    Args:
        user: float32 [D]
        vectors: Of all movies. float32 [M, D]
        biases: float32 [M]
        candidates: Catalogue numbers, ascending. [C]
        k: Movies wanted.
    """
    # numpy takes rows several times quicker than it indexes them.
    exact = sum_exactly(user, vectors.take(candidates, axis=0), biases.take(candidates))  # [C]
    best = np.argsort(-exact, kind="stable")[:k]
    return Ranked(candidates[best], exact[best])


def _nothing() -> Ranked:
    return Ranked(np.zeros(0, np.int64), np.zeros(0, np.float32))


def sum_exactly(
    users: NDArray[np.float32], vectors: NDArray[np.float32], biases: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Returns the scores that every list and every pair has, whatever else is scored with them.

    Args:
        users: One user or one for each pair. float32 [D] or [P, D]
        vectors: Of the movies. float32 [P, D]
        biases: Of the movies. float32 [P]
    """
    products = vectors.astype(np.float64)
    products *= users
    dots = np.add.reduce(products, axis=-1)
    dots += biases
    scores: NDArray[np.float32] = dots.astype(np.float32)
    return scores


def _sum_exactly_torch(users: Tensor, movies: MovieMatrix, numbers: Tensor) -> Tensor:
    dots = (movies.vectors[numbers].double() * users).sum(dim=-1)
    return (dots + movies.biases[numbers]).float()


def _chunks(num_rows: int, floats_per_row: int) -> list[slice]:
    step = max(1, _MAX_GATHERED_FLOATS // max(1, floats_per_row))
    return [slice(start, start + step) for start in range(0, num_rows, step)]
