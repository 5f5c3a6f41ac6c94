"""Finds few vectors for the mean of many products. Knows matrices; knows no rating, user or movie's name."""

from typing import Any

import numpy as np
import scipy.sparse
from numpy.typing import NDArray

Floats = NDArray[np.float32]


def mean_of_products(
    features: scipy.sparse.csc_array[Any], samples: list[tuple[Floats, Floats]], size: int, rng: np.random.Generator
) -> tuple[Floats, Floats]:
    """Returns vectors of user features and of movies whose products come closest to the mean over the samples.

    A randomised singular value decomposition (Halko, Martinsson & Tropp 2011, algorithms 4.4 and 5.1) of the mean over
    samples s of X A_s B_sᵀ, which is never formed.

    Args:
        features: X, of the users. Sparse [U, F]
        samples: A_s transposed [K, F] and B_s transposed [K, I] of each sample.
        size: R.
        rng: Draws the first basis.
    """
    weights = np.concatenate([of_features for of_features, _ in samples])  # [S K, F]
    right = np.concatenate([of_movies for _, of_movies in samples])  # [S K, I]
    left = (features @ weights.T).T  # [S K, U]
    width = min(size + 10, *left.shape, right.shape[1])
    basis = rng.standard_normal((right.shape[1], width), np.float32)  # [I, w]
    for _ in range(3):
        rows, _ = np.linalg.qr(left.T @ (right @ basis))  # [U, w]
        basis, _ = np.linalg.qr(right.T @ (left @ rows))  # [I, w]
    inner = right @ basis / len(samples)  # [S K, w]
    _, strengths, turns = np.linalg.svd(left.T @ inner, full_matrices=False)
    roots = np.sqrt(np.maximum(strengths[:size], 1e-30))
    feature_vectors = np.zeros((weights.shape[1], size), np.float32)
    movie_vectors = np.zeros((right.shape[1], size), np.float32)
    feature_vectors[:, : len(roots)] = weights.T @ (inner @ turns[:size].T / roots)
    movie_vectors[:, : len(roots)] = (basis @ turns[:size].T) * roots
    return feature_vectors, movie_vectors
