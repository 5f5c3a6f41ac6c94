"""Compresses dot products: fewer coordinates, nearly the same scores, and user vectors of covariance one.

Knows two sets of vectors; knows no rating, content or network.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Compressed:
    """Movie vectors and biases whose dot products with users drawn from N(0, I) have the spread of the old scores.

    Attributes:
        movie_vectors: float32 [I, R]
        movie_biases: Score of the mean user. float64 [I]
        user_vectors: The given users in the new coordinates, of mean 0. float32 [U, R]
        kept: Share of the scores' weighted variance that is kept, 0..1.
    """

    movie_vectors: NDArray[np.float32]
    movie_biases: NDArray[np.float64]
    user_vectors: NDArray[np.float32]
    kept: float


def compress(
    movie_vectors: NDArray[np.float64],
    user_vectors: NDArray[np.float64],
    movie_weights: NDArray[np.floating] | NDArray[np.integer],
    size: int,
    spread: float,
) -> Compressed:
    """Whitens by the users' covariance, then keeps the principal directions of the weighted movies.

    With C = Cov(users) = S², scores are (v - mean)·m = (S⁻¹(v - mean))·(S m), and of all R directions the leading
    eigenvectors of Σ_i w_i (S m_i)(S m_i)ᵀ lose least of Σ_i w_i Var_u(score_ui) (Eckart & Young 1936).

    Args:
        movie_vectors: [I, D]
        user_vectors: [U, D]
        movie_weights: How much each movie's scores count. [I]
        size: R; more than D directions are zeros.
        spread: Factor s on the users' covariance for the prior; movie vectors grow by √s, user vectors shrink.
    """
    mean = user_vectors.mean(0)
    centred = user_vectors - mean
    variances, axes = np.linalg.eigh(centred.T @ centred / len(centred))
    variances = np.maximum(variances, 0.0)
    # Directions in which no two users differ carry no score, and their inverse would blow rounding up.
    inverse = np.where(variances > 1e-9 * variances.max(), 1 / np.sqrt(np.maximum(variances, 1e-300)), 0.0)
    whitened = (movie_vectors @ axes) * np.sqrt(variances)  # [I, D]
    strengths, directions = np.linalg.eigh((whitened * movie_weights[:, None]).T @ whitened)
    rank = min(size, len(strengths))
    directions = directions[:, ::-1][:, :rank]  # [D, R]
    compressed_movies = np.zeros((len(movie_vectors), size))
    compressed_users = np.zeros((len(user_vectors), size))
    compressed_movies[:, :rank] = whitened @ directions * np.sqrt(spread)
    compressed_users[:, :rank] = (centred @ axes * inverse) @ directions / np.sqrt(spread)
    return Compressed(
        compressed_movies.astype(np.float32),
        movie_vectors @ mean,
        compressed_users.astype(np.float32),
        float(strengths[::-1][:rank].sum() / max(float(strengths.sum()), 1e-300)),
    )
