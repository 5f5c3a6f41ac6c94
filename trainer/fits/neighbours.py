"""Finds the movies most like each movie by who watched them and what they made of them. Knows sparse matrices only.

A block of movies is compared with all others at a time: memory grows with their number, not with its square.
"""

from dataclasses import dataclass

import numpy as np
import scipy.sparse
import scipy.sparse.linalg
from numpy.typing import NDArray

_CELLS_AT_ONCE = 32 << 20
"""Similarities held at once: 256 MiB of float64."""


@dataclass(frozen=True, slots=True)
class Neighbours:
    """The most similar movies of each, best first; where there are fewer, row -1 and similarity 0 follow.

    Attributes:
        rows: int64 [I, k]
        similarities: Above 0. float32 [I, k]
    """

    rows: NDArray[np.int64]
    similarities: NDArray[np.float32]


def find_neighbours(values: scipy.sparse.csr_array, kept: int, shrinkage: float) -> Neighbours:
    """Returns neighbours by cosine, shrunk to 0 where few users speak for it: times n / (n + λ) for n common users.

    The shrinkage is Koren's (2010, section 2.2). Cosines at or below 0 are no neighbours.

    Args:
        values: What each user made of each movie. [U, I]
        kept: Neighbours of each movie at most.
        shrinkage: λ.
    """
    num_movies = values.shape[1]
    lengths = np.sqrt(np.asarray(values.multiply(values).sum(axis=0)).ravel())  # [I]
    by_movie = scipy.sparse.csr_array((values / np.maximum(lengths, 1e-12)).T)  # [I, U]
    by_user = scipy.sparse.csr_array(by_movie.T)  # [U, I]
    ones_by_movie, ones_by_user = _ones(by_movie), _ones(by_user)
    width = min(kept, num_movies)
    rows = np.full((num_movies, kept), -1, np.int64)
    similarities = np.zeros((num_movies, kept), np.float32)
    at_once = max(1, _CELLS_AT_ONCE // max(1, num_movies))
    for start in range(0, num_movies, at_once):
        block = slice(start, min(start + at_once, num_movies))
        cosines = (by_movie[block] @ by_user).toarray()  # [b, I]
        if shrinkage:
            common = (ones_by_movie[block] @ ones_by_user).toarray()
            cosines *= common / (common + shrinkage)
        cosines[np.arange(len(cosines)), np.arange(block.start, block.stop)] = 0
        best = np.argpartition(-cosines, width - 1, axis=1)[:, :width]  # [b, k]
        found = np.take_along_axis(cosines, best, axis=1)
        # Ties go to the smaller row, so that the order is the same everywhere.
        order = np.lexsort((best, -found), axis=1)
        best, found = np.take_along_axis(best, order, axis=1), np.take_along_axis(found, order, axis=1)
        rows[block, :width] = np.where(found > 0, best, -1)
        similarities[block, :width] = np.maximum(found, 0)
    return Neighbours(rows, similarities)


def similarity_vectors(values: scipy.sparse.csr_array, size: int) -> NDArray[np.float32]:
    """Returns vectors whose cosines come near those of the columns: a truncated SVD (Eckart & Young 1936). [I, size].

    Columns of 0 follow where the matrix has fewer directions. The search may start anywhere but at right angles to
    the first of them, which is of one sign: ones will do.
    """
    lengths = np.sqrt(np.asarray(values.multiply(values).sum(axis=0)).ravel())
    normed = scipy.sparse.csr_array(values / np.maximum(lengths, 1e-12))
    vectors = np.zeros((values.shape[1], size), np.float32)
    rank = min(size, min(values.shape) - 1)
    if rank < 1:
        vectors[:, 0] = 1
        return vectors
    _, singular, right = scipy.sparse.linalg.svds(normed, k=rank, v0=np.ones(min(values.shape)))
    vectors[:, :rank] = (right * singular[:, None])[::-1].T
    return vectors


def _ones(matrix: scipy.sparse.csr_array) -> scipy.sparse.csr_array:
    ones = matrix.copy()
    ones.data = np.ones_like(ones.data)
    return ones
