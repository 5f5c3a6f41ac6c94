"""Ranks many movies on a CPU, scanning the scores once. Knows vectors and masks; knows no user and no RPC.

Sorting out the best of a hundred thousand scores costs more than a few passes over them, and scores that have left the
cache are read slowly. So scores are made a slab at a time, of each slab the largest score of every block of movies is
noted, and only blocks whose largest may be among the best are looked into. The kth largest of the blocks' largest is a
score that k movies reach, whatever the others are.
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from two_tower.permitted import Permitted
from two_tower.top_k import MovieMatrix, Ranked, TorchScorer, best_of

_BLOCK = 64
_TILE_FLOATS = 1 << 19
"""Scores that are made and looked at while they are in a cache: 2 MiB."""

_SLAB_FLOATS = 6_500_000
"""Scores at once. Below 32 MiB, so that the allocator gives the same pages again and none is cleared anew."""

_BLOCKS_PER_MOVIE = 4
"""Blocks to each movie wanted at least: with fewer, nearly every block may hold one."""


class BlockwiseScorer(TorchScorer):
    """Scores as `TorchScorer`, and ranks large catalogues on a CPU block by block."""

    def rank(self, users: Tensor, movies: MovieMatrix, ks: Sequence[int], permitted: Permitted) -> list[Ranked]:
        """Ranks as `Scorer.rank` says."""
        if users.device.type != "cpu" or len(movies.vectors) < _BLOCK * _BLOCKS_PER_MOVIE * max(ks, default=1):
            return super().rank(users, movies, ks, permitted)
        margins = movies.margin(users.double().norm(dim=-1).numpy())  # [B]
        rows, numbers, scores = _candidates(users, movies, np.asarray(ks, np.int64), permitted, margins)
        bounds = np.searchsorted(rows, np.arange(len(ks) + 1))
        vectors, biases, user_vectors = movies.vectors.numpy(), movies.biases.numpy(), users.numpy()
        answers = []
        for row, k in enumerate(ks):
            some = slice(bounds[row], bounds[row + 1])
            mine, found = numbers[some], scores[some]  # [C], ascending, and [C]
            if len(mine) > k:
                mine = mine[found >= np.partition(found, len(found) - k)[len(found) - k] - margins[row]]
            answers.append(best_of(user_vectors[row], vectors, biases, mine, k))
        return answers


def _candidates(
    users: Tensor, movies: MovieMatrix, ks: NDArray[np.int64], permitted: Permitted, margins: NDArray[np.float64]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
    """Returns the row, number and score of all that may be among the best of a row, by row and then by number."""
    num_rows, num_movies = len(users), len(movies.vectors)
    tile_width = max(1, _TILE_FLOATS // num_rows // _BLOCK) * _BLOCK
    width = max(1, _SLAB_FLOATS // num_rows // tile_width) * tile_width
    by_number = np.argsort(permitted.excluded_numbers, kind="stable")
    excluded_rows, excluded = permitted.excluded_rows[by_number], permitted.excluded_numbers[by_number]  # [X]
    bars = np.full(num_rows, -np.inf)  # [B], a score that enough movies reach
    parts: list[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]] = []
    for start in range(0, num_movies, width):
        stop = min(start + width, num_movies)
        num_blocks = -(-(stop - start) // _BLOCK)
        slab = torch.empty(num_rows, num_blocks * _BLOCK)  # [B, S]
        slab[:, stop - start :] = -torch.inf
        largest = np.empty((num_rows, num_blocks), np.float32)  # [B, S / _BLOCK]
        for first in range(start, stop, tile_width):
            last = min(first + tile_width, stop)
            _score(users, movies, permitted, first, last, slab[:, first - start : last - start])
            hidden = slice(*np.searchsorted(excluded, (first, last)))
            slab.numpy()[excluded_rows[hidden], excluded[hidden] - start] = -np.inf
            blocks = slice((first - start) // _BLOCK, -(-(last - start) // _BLOCK))
            tile = slab[:, blocks.start * _BLOCK : blocks.stop * _BLOCK].view(num_rows, -1, _BLOCK)
            largest[:, blocks] = tile.amax(dim=-1).numpy()
        _raise(bars, largest, ks)
        parts.append(_above(slab.view(num_rows, -1, _BLOCK).numpy(), largest, bars - margins, start))
    rows, numbers, scores = (np.concatenate(each) for each in zip(*parts, strict=True))
    by_row = np.argsort(rows, kind="stable")
    return rows[by_row], numbers[by_row], scores[by_row]


def _score(users: Tensor, movies: MovieMatrix, permitted: Permitted, first: int, last: int, into: Tensor) -> None:
    """Writes the scores of some movies, minus infinity where a mask forbids one. [B, last - first]."""
    vectors, biases = movies.vectors[first:last], movies.biases[first:last]
    allowed = torch.from_numpy(permitted.masks[:, first:last])  # [F, m]
    if len(allowed) == 1:
        # What holds for all rows goes into the sum and costs no pass of its own.
        torch.addmm(biases.masked_fill(~allowed[0], -torch.inf), users, vectors.T, out=into)
        return
    torch.addmm(biases, users, vectors.T, out=into)
    into += torch.zeros(allowed.shape).masked_fill_(~allowed, -torch.inf)[torch.from_numpy(permitted.mask_of_row)]


def _raise(bars: NDArray[np.float64], largest: NDArray[np.float32], ks: NDArray[np.int64]) -> None:
    """Raises each row's bar to the kth of the blocks' largest scores, where there are k of them."""
    num_blocks = largest.shape[-1]
    for k in np.unique(ks[ks <= num_blocks]).tolist():
        some = np.flatnonzero(ks == k)
        kth = np.partition(largest[some], num_blocks - k, axis=-1)[:, num_blocks - k]
        bars[some] = np.maximum(bars[some], kth)


def _above(
    blocks: NDArray[np.float32], largest: NDArray[np.float32], bars: NDArray[np.float64], start: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
    """Returns row, number and score of all permitted movies that reach their row's bar."""
    rows, places = np.nonzero((largest >= bars[:, None]) & (largest > -np.inf))  # [n]
    scores = blocks[rows, places]  # [n, _BLOCK]
    which, within = np.nonzero((scores >= bars[rows, None]) & (scores > -np.inf))
    return rows[which], start + places[which] * _BLOCK + within, scores[which, within]
