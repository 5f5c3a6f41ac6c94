"""Ranks exactly, over a copy of the allowed movies alone where that takes less. Knows masks; knows no index and no RPC.

Exact search reads the vectors of all movies, whatever a filter lets through. Where that is little, its vectors are
copied and searched: the same movies in the same order with the same scores, so the answer is the same to the last bit.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from two_tower.permitted import Permitted
from two_tower.top_k import MovieMatrix, Ranked, Scorer

_MOST_FLOATS = 16 << 20
"""Of vectors that are copied: 64 MiB. A batch must not take another half of the movies' memory."""

_COPIED = 12
_READ = 4
"""What a vector costs to copy, and to read, for each product with a user that it costs as much as. Over a million
movies .12, .04 and .01 us: benchmarks/results/topk_scaling.json tells what comes of it."""


class GatheringScorer:
    """Ranks as another scorer does, over fewer movies."""

    def __init__(self, exact: Scorer) -> None:
        """Stores what ranks."""
        self._exact = exact

    def rank(self, users: Tensor, movies: MovieMatrix, ks: Sequence[int], permitted: Permitted) -> list[Ranked]:
        """Ranks as `Scorer.rank` says."""
        found: dict[int, Ranked] = {}
        num_movies, width = movies.vectors.shape
        if movies.vectors.device.type == "cpu":
            for mask in np.unique(permitted.mask_of_row).tolist():
                rows = np.flatnonzero(permitted.mask_of_row == mask).tolist()
                num_allowed = int(np.count_nonzero(permitted.masks[mask]))
                copying, reading = _COPIED + _READ + len(rows), _READ + len(rows)
                if num_allowed * copying <= num_movies * reading and num_allowed * width <= _MOST_FLOATS:
                    few = _ranked(self._exact, users[rows], movies, [ks[row] for row in rows], permitted.take(rows))
                    found.update(zip(rows, few, strict=True))
        return with_rest(found, self._exact, users, movies, ks, permitted)

    def score_pairs(
        self, users: Tensor, movies: MovieMatrix, positions: NDArray[np.int64], numbers: NDArray[np.int64]
    ) -> NDArray[np.float32]:
        """Scores as `Scorer.score_pairs` says."""
        return self._exact.score_pairs(users, movies, positions, numbers)


def with_rest(
    found: Mapping[int, Ranked],
    exact: Scorer,
    users: Tensor,
    movies: MovieMatrix,
    ks: Sequence[int],
    permitted: Permitted,
) -> list[Ranked]:
    """Returns what was found for each row, and for the others what a scorer finds; arguments as of `Scorer.rank`."""
    left = [row for row in range(len(ks)) if row not in found]
    rest = iter(exact.rank(users[left], movies, [ks[row] for row in left], permitted.take(left)) if left else ())
    return [found[row] if row in found else next(rest) for row in range(len(ks))]


def _ranked(exact: Scorer, users: Tensor, movies: MovieMatrix, ks: Sequence[int], permitted: Permitted) -> list[Ranked]:
    """Ranks rows of one mask over what it allows."""
    allowed = np.flatnonzero(permitted.masks[permitted.mask_of_row[0]])  # [m]
    if not len(allowed):
        return [Ranked(np.zeros(0, np.int64), np.zeros(0, np.float32)) for _ in ks]
    # numpy copies rows several times quicker than torch does.
    vectors = torch.from_numpy(movies.vectors.numpy().take(allowed, axis=0))  # [m, D]
    some = MovieMatrix(vectors, torch.from_numpy(movies.biases.numpy()[allowed]), movies.reach)
    places = np.searchsorted(allowed, permitted.excluded_numbers)  # [X]
    here = allowed[np.minimum(places, len(allowed) - 1)] == permitted.excluded_numbers
    mine = Permitted(
        np.ones((1, len(allowed)), np.bool_), np.zeros(len(ks), np.int64), permitted.excluded_rows[here], places[here]
    )
    ranked = exact.rank(users, some, ks, mine)
    return [Ranked(allowed[each.numbers], each.scores) for each in ranked]
