"""Ranks many movies on a CPU, scanning the scores once. Knows vectors and masks; knows no user and no RPC.

Sorting out the best of a hundred thousand scores costs more than a few passes over them, and scores that have left the
cache are read slowly. So scores are made a slab at a time, of each slab the largest score of every block of movies is
noted, and only blocks whose largest may be among the best are looked into. The kth largest of the blocks' largest is a
score that k movies reach, whatever the others are.

Where the movies are held in bfloat16 too, these scores are products of that, with a wider margin: a few more movies are
candidates, and the lists are the same.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from two_tower.narrow_movies import HALF_ULP
from two_tower.permitted import Permitted
from two_tower.top_k import MovieMatrix, Ranked, TorchScorer, best_of

_BLOCK = 32
_TILE_FLOATS = 1 << 19
"""Scores that are made and looked at while they are in a cache: 2 MiB."""

_SLAB_FLOATS = 6_500_000
"""Scores at once. Below 32 MiB, so that the allocator gives the same pages again and none is cleared anew."""

_BLOCKS_PER_MOVIE = 4
"""Blocks to each movie wanted at least: with fewer, nearly every block may hold one."""

_ROWS_AT_ONCE = 256
"""With many more a slab has fewer blocks than a row wants movies, and says nothing of what its best ones reach."""


class BlockwiseScorer(TorchScorer):
    """Scores as `TorchScorer`, and ranks large catalogues on a CPU block by block."""

    def rank(self, users: Tensor, movies: MovieMatrix, ks: Sequence[int], permitted: Permitted) -> list[Ranked]:
        """Ranks as `Scorer.rank` says."""
        if users.device.type != "cpu" or len(movies.vectors) < _BLOCK * _BLOCKS_PER_MOVIE * max(ks, default=1):
            return super().rank(users, movies, ks, permitted)
        if 0 < len(ks) <= _ROWS_AT_ONCE:
            return _rank(users, movies, ks, permitted)
        parts = [range(start, min(start + _ROWS_AT_ONCE, len(ks))) for start in range(0, len(ks), _ROWS_AT_ONCE)]
        return [
            ranked
            for rows in parts
            for ranked in _rank(users[rows.start : rows.stop], movies, ks[rows.start : rows.stop], permitted.take(rows))
        ]


def _rank(users: Tensor, movies: MovieMatrix, ks: Sequence[int], permitted: Permitted) -> list[Ranked]:
    rows, numbers = _candidates(_Product.of(users, movies), np.asarray(ks, np.int64), permitted)
    bounds = np.searchsorted(rows, np.arange(len(ks) + 1)).tolist()
    user_vectors, vectors, biases = users.numpy(), movies.vectors.numpy(), movies.biases.numpy()
    return [
        best_of(user_vectors[row], vectors, biases, numbers[bounds[row] : bounds[row + 1]], k)
        for row, k in enumerate(ks)
    ]


@dataclass(frozen=True, slots=True, eq=False)
class _Product:
    """What is multiplied for scores that tell who may be among the best. Letters: M movies, N numbers of each, B rows.

    Attributes:
        movies: [M, N]
        users: [N, B]
        biases: What is added to the product; None if it is in it. [M]
        margins: How far apart two scores of a row may lie that are equal in truth. [B]
        rounding: Largest relative error by which a score is rounded in the end.
    """

    movies: Tensor
    users: Tensor
    biases: Tensor | None
    margins: NDArray[np.float64]
    rounding: float

    @classmethod
    def of(cls, users: Tensor, movies: MovieMatrix) -> "_Product":
        """Takes the narrow movies if there are any, and their products can be trusted."""
        if movies.narrow is not None:
            narrow, errors = movies.narrow.round_users(users)
            if np.isfinite(errors).all():
                return cls(movies.narrow.vectors, narrow.T, None, 2 * errors, HALF_ULP)
        margins = movies.margin(users.double().norm(dim=-1).numpy())
        return cls(movies.vectors, users.T, movies.biases, margins, 0.0)

    def write(self, first: int, last: int, permitted: Permitted, into: Tensor) -> None:
        """Writes the scores of some movies, minus infinity where a mask forbids one. [last - first, B]."""
        movies = self.movies[first:last]
        allowed = torch.from_numpy(permitted.masks[:, first:last])  # [F, m]
        shared = len(allowed) == 1
        biases = None if self.biases is None else self.biases[first:last]
        if shared and not allowed.all():
            # What holds for all rows goes into the sum and costs no pass of its own.
            biases = movies.new_zeros(len(movies)) if biases is None else biases
            biases = biases.masked_fill(~allowed[0], -torch.inf)
        if biases is None:
            torch.mm(movies, self.users, out=into)
        else:
            torch.addmm(biases[:, None], movies, self.users, out=into)
        if not shared:
            walls = movies.new_zeros(len(movies), len(allowed)).masked_fill_(~allowed.T, -torch.inf)  # [m, F]
            into += walls.index_select(-1, torch.from_numpy(permitted.mask_of_row))

    def bars(self, kth: NDArray[np.float64]) -> NDArray[np.float64]:
        """Returns what a score must reach, at least, to be in truth as good as one that was found to be `kth`. [B].

        Where no number tells, since products or their bounds overflow, all are good enough.
        """
        with np.errstate(invalid="ignore"):
            least = kth - self.rounding * np.abs(kth) - self.margins
            least -= self.rounding * np.abs(least)
        return np.where(np.isfinite(least), least, -np.inf)


def _candidates(
    product: _Product, ks: NDArray[np.int64], permitted: Permitted
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Returns the row and number of all that may be among the best of a row, by row and then by number. [C] each."""
    num_movies, num_rows = len(product.movies), len(ks)
    tile_width = max(1, _TILE_FLOATS // num_rows // _BLOCK) * _BLOCK
    width = max(1, _SLAB_FLOATS // num_rows // tile_width) * tile_width
    by_number = np.argsort(permitted.excluded_numbers, kind="stable")
    excluded_rows = torch.from_numpy(permitted.excluded_rows[by_number])  # [X]
    excluded = permitted.excluded_numbers[by_number]  # [X]
    found = np.full(num_rows, -np.inf)  # [B], a score that enough movies reach
    parts: list[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]] = []
    for start in range(0, num_movies, width):
        stop = min(start + width, num_movies)
        num_blocks = -(-(stop - start) // _BLOCK)
        slab = product.movies.new_empty(num_blocks * _BLOCK, num_rows)  # [S, B]
        slab[stop - start :] = -torch.inf
        largest = slab.new_empty(num_blocks, num_rows)  # [S / _BLOCK, B]
        places = np.empty((num_blocks, _BLOCK), np.int64)  # in the slab
        for first in range(start, stop, tile_width):
            last = min(first + tile_width, stop)
            product.write(first, last, permitted, slab[first - start : last - start])
            hidden = slice(*np.searchsorted(excluded, (first, last)))
            slab[torch.from_numpy(excluded[hidden] - start), excluded_rows[hidden]] = -torch.inf
            blocks = slice((first - start) // _BLOCK, -(-(last - start) // _BLOCK))
            # The movies of a block lie apart, so that the largest of many blocks are found side by side.
            tile = slice(blocks.start * _BLOCK, blocks.stop * _BLOCK)
            torch.amax(slab[tile].view(_BLOCK, -1, num_rows), dim=0, out=largest[blocks])
            places[blocks] = np.arange(tile.start, tile.stop).reshape(_BLOCK, -1).T
        tops = largest.float().numpy().T  # [B, S / _BLOCK]
        _raise(found, tops, ks)
        parts.append(_above(slab, places, tops, product.bars(found), start))
    rows, numbers, scores = (np.concatenate(each) for each in zip(*parts, strict=True))
    return _thinned(product, rows, numbers, scores, ks)


def _raise(found: NDArray[np.float64], tops: NDArray[np.float32], ks: NDArray[np.int64]) -> None:
    """Raises what is reached in each row to the kth of the blocks' largest scores, where there are k of them."""
    num_blocks = tops.shape[-1]
    for k in np.unique(ks[ks <= num_blocks]).tolist():
        some = np.flatnonzero(ks == k)
        kth = np.partition(tops[some], num_blocks - k, axis=-1)[:, num_blocks - k]
        found[some] = np.maximum(found[some], kth)


def _above(
    slab: Tensor, places: NDArray[np.int64], tops: NDArray[np.float32], bars: NDArray[np.float64], start: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
    """Returns row, number and score of all permitted movies that reach their row's bar."""
    rows, blocks = np.nonzero((tops >= bars[:, None]) & (tops > -np.inf))  # [n]
    inside = places[blocks]  # [n, _BLOCK]
    scores = _taken(slab, inside * slab.shape[-1] + rows[:, None])  # [n, _BLOCK]
    # Comparing with bars in float32, which are no higher, takes a third of the time.
    least = np.nextafter(bars.astype(np.float32), np.float32(-np.inf))
    good = np.flatnonzero((scores >= least[rows, None]) & (scores > -np.inf))
    return rows[good // _BLOCK], start + inside.ravel()[good], scores.ravel()[good]


def _taken(scores: Tensor, places: NDArray[np.int64]) -> NDArray[np.float32]:
    """Returns scores from where they lie in memory; numpy, which knows no bfloat16, does it in half the time."""
    if scores.dtype is torch.float32:
        return scores.numpy().ravel().take(places)
    bits = scores.view(torch.int16).numpy().ravel().take(places)
    return torch.from_numpy(bits).view(scores.dtype).float().numpy()


def _thinned(
    product: _Product,
    rows: NDArray[np.int64],
    numbers: NDArray[np.int64],
    scores: NDArray[np.float32],
    ks: NDArray[np.int64],
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Returns those that may be among the best once all scores are known, by row and then by number."""
    by_row = np.argsort(rows, kind="stable")
    rows, numbers, scores = rows[by_row], numbers[by_row], scores[by_row]
    bounds = np.searchsorted(rows, np.arange(len(ks) + 1)).tolist()
    kth = np.full(len(ks), -np.inf)
    for row, k in enumerate(ks.tolist()):
        mine = scores[bounds[row] : bounds[row + 1]]
        if len(mine) >= k:
            kth[row] = np.partition(mine, len(mine) - k)[len(mine) - k]
    left = scores >= product.bars(kth)[rows]
    # Keys of row and number are sorted several times quicker than both are one after the other.
    num_movies = len(product.movies)
    return np.divmod(np.sort(rows[left] * num_movies + numbers[left]), num_movies)
