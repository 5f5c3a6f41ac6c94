"""Ranks by an index of the movies where that is exact enough, and exactly elsewhere. Knows scorers; knows no index.

An index proposes candidates; they are scored as everywhere else, so an answer differs from the exact one in what it
lacks at most, never in a score or in what it may hold. The index looks for k movies, beside those that the row
excludes, among those that its filter lets through, or says that it cannot find enough of them. Rows that share a filter
and want the index to look equally far are looked up at once; what a row excludes is dropped from what was proposed to
it, of which there is as much more. How far is decided by the row alone: it is answered alike alone and in a batch.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from model_service.gathering_scorer import GatheringScorer, with_rest
from two_tower.permitted import Permitted
from two_tower.top_k import MovieMatrix, Ranked, Scorer, best_of

_FLOATS_AT_ONCE = 1 << 18
"""Of candidate vectors that are gathered and scored at once: 1 MiB, which a cache holds."""


class UnreachableRecallError(Exception):
    """No index of these movies finds the share of the best ones that is wanted."""


@dataclass(frozen=True, slots=True)
class Look:
    """How much an index looks at for a row.

    Attributes:
        num_groups: Of movies that are looked at, those nearest to the user; 0 where `coverage` tells.
        num_proposed: Movies that are proposed, of those that a filter lets through.
        num_scored: Of these, how many of those that are not excluded are worth a score.
        num_wanted: Of the best movies, as many as must be found.
        coverage: Share of these that the groups looked at should hold.
    """

    num_groups: int
    num_proposed: int
    num_scored: int
    num_wanted: int = 0
    coverage: float = 0.0


class CandidateIndex(Protocol):
    """Proposes movies of the matrix that it was built of."""

    def look_for(self, k: int, num_excluded: int, num_allowed: int) -> Look | None:
        """Returns how much must be looked at; None if no search finds enough, or none is cheaper than an exact one.

        Args:
            k: Movies wanted.
            num_excluded: Movies that may be proposed although they are not wanted.
            num_allowed: Movies that the filter lets through.
        """
        ...

    def propose(self, users: NDArray[np.float32], look: Look, allowed: NDArray[np.uint8]) -> NDArray[np.int64]:
        """Returns candidates for the best allowed movies, those first that seem best.

        Args:
            users: float32 [B, D]
            look: How much to look at.
            allowed: One bit a movie, the first in the lowest bit. uint8 [ceil(M / 8)]

        Returns:
            Catalogue numbers, distinct in a row, and -1 behind them where the index found fewer. int64 [B, P]
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
        self._exact = GatheringScorer(exact)
        self.num_exact = 0

    def rank(self, users: Tensor, movies: MovieMatrix, ks: Sequence[int], permitted: Permitted) -> list[Ranked]:
        """Ranks as `Scorer.rank` says, but that a list may lack movies that the index did not find."""
        found: dict[int, Ranked] = {}
        if movies is self._movies:
            user_vectors = users.numpy()  # [B, D]
            for mask, groups in self._divided(ks, permitted).items():
                bits = self._bits_of(permitted.masks[mask])
                for (k, look), rows in groups.items():
                    proposed = self._index.propose(user_vectors[rows], look, bits)  # [b, P]
                    candidates = self._candidates(proposed, look, permitted, rows)
                    found.update(self._best(user_vectors, rows, *candidates, k))
        self.num_exact += len(ks) - len(found)
        return with_rest(found, self._exact, users, movies, ks, permitted)

    def score_pairs(
        self, users: Tensor, movies: MovieMatrix, positions: NDArray[np.int64], numbers: NDArray[np.int64]
    ) -> NDArray[np.float32]:
        """Scores as `Scorer.score_pairs` says."""
        return self._exact.score_pairs(users, movies, positions, numbers)

    def _divided(self, ks: Sequence[int], permitted: Permitted) -> dict[int, dict[tuple[int, Look], list[int]]]:
        """Returns the rows that are looked up together, by mask and by what they want; not those out of reach."""
        num_allowed = [int(np.count_nonzero(mask)) for mask in permitted.masks]  # [F]
        num_excluded = np.bincount(permitted.excluded_rows, minlength=len(ks)).tolist()  # [B]
        divided: dict[int, dict[tuple[int, Look], list[int]]] = defaultdict(lambda: defaultdict(list))
        for row, (k, mask) in enumerate(zip(ks, permitted.mask_of_row.tolist(), strict=True)):
            look = self._index.look_for(k, num_excluded[row], num_allowed[mask])
            if look is not None:
                divided[mask][k, look].append(row)
        return divided

    def _bits_of(self, mask: NDArray[np.bool_]) -> NDArray[np.uint8]:
        """Returns the bits that the index may look at: none of what it knows as it was."""
        bits: NDArray[np.uint8] = np.packbits(mask, bitorder="little")
        # One after the other, since two movies may share a byte.
        np.bitwise_and.at(bits, self._stale >> 3, ~(np.uint8(1) << (self._stale & 7).astype(np.uint8)))
        return bits

    def _candidates(
        self, proposed: NDArray[np.int64], look: Look, permitted: Permitted, rows: Sequence[int]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Returns what may be answered to some rows of one mask: places within `rows` and numbers, ascending. [C]."""
        num_movies = self._movies.vectors.shape[0]
        own = permitted.take(rows)
        excluded = np.sort(own.excluded_rows * num_movies + own.excluded_numbers)  # [X]
        places = np.arange(len(rows))[:, None]  # [b, 1]
        keys = places * num_movies + proposed  # [b, P]
        good = (proposed >= 0) & ~_among(keys, excluded)
        good &= np.cumsum(good, axis=-1) <= look.num_scored
        found = keys[good]  # [C]
        if len(self._stale):
            stale = self._stale[permitted.masks[permitted.mask_of_row[rows[0]]][self._stale]]
            beside = (places * num_movies + stale).ravel()
            found = np.concatenate([found, beside[~_among(beside, excluded)]])
        return np.divmod(np.sort(found), num_movies)

    def _best(
        self,
        users: NDArray[np.float32],
        rows: Sequence[int],
        places: NDArray[np.int64],
        numbers: NDArray[np.int64],
        k: int,
    ) -> Iterator[tuple[int, Ranked]]:
        """Yields the rows for which enough was found, each with the best of its candidates."""
        vectors, biases = self._movies.vectors.numpy(), self._movies.biases.numpy()  # [M, D], [M]
        margins = self._movies.margin(np.linalg.norm(users[rows].astype(np.float64), axis=-1))  # [b]
        bounds = np.searchsorted(places, np.arange(len(rows) + 1)).tolist()
        at_once = max(1, _FLOATS_AT_ONCE // (vectors.shape[-1] * max(1, len(places) // len(rows))))
        for first in range(0, len(rows), at_once):
            last = min(first + at_once, len(rows))
            some = numbers[bounds[first] : bounds[last]]
            gathered, added = vectors.take(some, axis=0), biases[some]  # [c, D], [c]
            for place in range(first, last):
                start, stop = bounds[place], bounds[place + 1]
                # As many as are wanted lie deeper than the index looked; it was measured on average, not for this row.
                if stop - start >= k:
                    within = slice(start - bounds[first], stop - bounds[first])
                    user, row = users[rows[place]], rows[place]
                    best = _best_of(user, gathered[within], added[within], k, margins[place])
                    yield row, Ranked(numbers[start:stop][best.numbers], best.scores)


def _best_of(
    user: NDArray[np.float32], vectors: NDArray[np.float32], biases: NDArray[np.float32], k: int, margin: np.float64
) -> Ranked:
    """Returns the places of the best candidates; only those that may be among them are worth a sum in float64."""
    scores = vectors @ user  # [C]
    scores += biases
    kth = np.partition(scores, len(scores) - k)[len(scores) - k]
    return best_of(user, vectors, biases, np.flatnonzero(scores >= kth - margin), k)


def _among(keys: NDArray[np.int64], listed: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Tells which keys are listed, in ascending order."""
    if not len(listed):
        return np.zeros(keys.shape, np.bool_)
    found: NDArray[np.bool_] = listed[np.searchsorted(listed[:-1], keys)] == keys
    return found
