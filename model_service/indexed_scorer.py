"""Ranks by an index of the movies where that is exact enough, and exactly elsewhere. Knows scorers; knows no index.

An index proposes candidates; they are scored as everywhere else, so an answer differs from the exact one in what it
lacks at most, never in a score or in what it may hold. How deep in the list of all movies an answer reaches decides how
much the index must look at: k movies, beside those that the row excludes, of the share that its filter lets through.
"""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from two_tower.permitted import Permitted
from two_tower.top_k import MovieMatrix, Ranked, Scorer, best_of

_FEW = 200
"""Candidates that are summed in float64 as quickly as they are looked through."""


class UnreachableRecallError(Exception):
    """No index of these movies finds the share of the best ones that is wanted."""


class CandidateIndex(Protocol):
    """Proposes movies of the matrix that it was built of."""

    @property
    def deepest(self) -> float:
        """How deep into the list of all movies a search may reach."""
        ...

    def propose(self, user: NDArray[np.float32], k: int, depth: float, allowed: NDArray[np.uint8]) -> NDArray[np.int64]:
        """Returns candidates for the best `k` allowed movies.

        Args:
            user: float32 [D]
            k: Movies wanted.
            depth: How deep into the list of all movies the k allowed ones reach, at most `deepest`.
            allowed: One bit a movie, the first in the lowest bit. uint8 [ceil(M / 8)]

        Returns:
            Distinct catalogue numbers, fewer than k if the index found no more. int64 [C]
        """
        ...

    def stale(self, movies: MovieMatrix) -> NDArray[np.int64]:
        """Returns the numbers of movies that are new or have changed since the index was built, ascending."""
        ...


class IndexedScorer:
    """Answers what an index can from the index, and lets another scorer do the rest.

    Attributes:
        num_exact: Rows that the other scorer ranked so far.
    """

    def __init__(self, index: CandidateIndex, movies: MovieMatrix, stale: NDArray[np.int64], exact: Scorer) -> None:
        """Stores what to ask.

        Args:
            index: Of these movies, or of what they were before some changed.
            movies: What is ranked by the index, on the CPU; any other matrix is ranked exactly.
            stale: Movies that the index does not know as they are now; all of them are candidates. [s]
            exact: Ranks the rest.
        """
        self._index = index
        self._movies = movies
        self._stale = stale
        self._exact = exact
        self.num_exact = 0

    def rank(self, users: Tensor, movies: MovieMatrix, ks: Sequence[int], permitted: Permitted) -> list[Ranked]:
        """Ranks as `Scorer.rank` says, but that a list may lack movies that the index did not find."""
        found: dict[int, Ranked] = {}
        if movies is self._movies:
            masks = [self._prepare(mask) for mask in permitted.masks]
            user_vectors = users.numpy()  # [B, D]
            margins = movies.margin(np.linalg.norm(user_vectors.astype(np.float64), axis=-1))  # [B]
            for row, k in enumerate(ks):
                candidates = self._candidates(user_vectors[row], k, permitted, row, *masks[permitted.mask_of_row[row]])
                if candidates is not None:
                    found[row] = self._best_of(user_vectors[row], k, candidates, margins[row])
        left = [row for row in range(len(ks)) if row not in found]
        self.num_exact += len(left)
        if left:
            rest = self._exact.rank(users[left], movies, [ks[row] for row in left], permitted.take(left))
            found.update(zip(left, rest, strict=True))
        return [found[row] for row in range(len(ks))]

    def score_pairs(
        self, users: Tensor, movies: MovieMatrix, positions: NDArray[np.int64], numbers: NDArray[np.int64]
    ) -> NDArray[np.float32]:
        """Scores as `Scorer.score_pairs` says."""
        return self._exact.score_pairs(users, movies, positions, numbers)

    def _prepare(self, mask: NDArray[np.bool_]) -> tuple[NDArray[np.uint8], int]:
        """Returns the bits that the index may look at, and how many movies the mask allows."""
        bits: NDArray[np.uint8] = np.packbits(mask, bitorder="little")
        _clear(bits, self._stale)
        return bits, int(np.count_nonzero(mask))

    def _candidates(
        self,
        user: NDArray[np.float32],
        k: int,
        permitted: Permitted,
        row: int,
        bits: NDArray[np.uint8],
        num_allowed: int,
    ) -> NDArray[np.int64] | None:
        """Returns what may be answered to a row, ascending; None if the index does not reach so deep."""
        excluded = permitted.excluded_of_row(row)
        depth = (k + len(excluded)) * len(self._movies.vectors) / max(num_allowed, 1)
        if depth > self._index.deepest:
            return None
        if len(excluded):
            bits = bits.copy()
            _clear(bits, excluded)
        proposed = self._index.propose(user, k, depth, bits)
        if len(self._stale):
            stale = self._stale[permitted.masks[permitted.mask_of_row[row]][self._stale]]
            proposed = np.concatenate([proposed, np.setdiff1d(stale, excluded)])
        # As many as are wanted lie deeper than the index looked; it was measured on average, not for this row.
        return np.sort(proposed) if len(proposed) >= k else None

    def _best_of(self, user: NDArray[np.float32], k: int, candidates: NDArray[np.int64], margin: np.float64) -> Ranked:
        """Returns the best candidates; only those that may be among them are worth a sum in float64."""
        vectors, biases = self._movies.vectors.numpy(), self._movies.biases.numpy()  # [M, D], [M]
        if len(candidates) > max(k, _FEW):
            scores = vectors.take(candidates, axis=0) @ user + biases[candidates]  # [C]
            kth = np.partition(scores, len(scores) - k)[len(scores) - k]
            candidates = candidates[scores >= kth - margin]
        return best_of(user, vectors, biases, candidates, k)


def _clear(bits: NDArray[np.uint8], numbers: NDArray[np.int64]) -> None:
    # One after the other, since two movies may share a byte.
    np.bitwise_and.at(bits, numbers >> 3, ~(np.uint8(1) << (numbers & 7).astype(np.uint8)))
