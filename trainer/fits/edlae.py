"""Fits the retrieval head for data without times: a linear autoencoder over watched movies, factored.

Knows who watched what; knows no rating, order, content or serving form.
"""

from dataclasses import dataclass

import numpy as np
import scipy.linalg
import scipy.sparse
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class LinearAutoencoder:
    """A factored head: score_i = Σ_j inputs[j] · outputs[i] over the watched movies j.

    Attributes:
        inputs: float32 [I, K]
        outputs: float32 [I, K]
    """

    inputs: NDArray[np.float32]
    outputs: NDArray[np.float32]


def fit_edlae(
    user_rows: NDArray[np.int32],
    movie_rows: NDArray[np.int32],
    num_users: int,
    num_movies: int,
    *,
    size: int,
    dropout: float,
    ridge: float,
    max_movies: int,
) -> LinearAutoencoder:
    """Solves EDLAE in closed form (Steck 2020, "Autoencoders that don't overfit towards the identity", section 3).

    The weights B = I - P·diag(P)⁻¹ with P = (XᵀX + p/(1-p)·diag(XᵀX) + λI)⁻¹ are cut to the given rank by the
    eigenvectors V of BᵀXᵀXB: of all matrices of that rank, B·V·Vᵀ gives the nearest scores on the training rows.

    Args:
        user_rows: [n]
        movie_rows: [n]
        num_users: Users.
        num_movies: Movies.
        size: Rank that is kept, at most.
        dropout: p, the share of watched movies hidden.
        ridge: λ.
        max_movies: Only so many movies, those watched most, take part; the others' rows are zeros. The time is cubic
            in it.
    """
    counts = np.bincount(movie_rows, minlength=num_movies)
    chosen = np.sort(np.argsort(-counts, kind="stable")[: min(max_movies, num_movies)])
    watched = scipy.sparse.csr_matrix(
        (np.ones(len(user_rows), np.float32), (user_rows, movie_rows)), shape=(num_users, num_movies)
    )[:, chosen]
    gram = (watched.T @ watched).toarray().astype(np.float64)  # [I', I']
    weights = autoencoder_weights(gram, dropout=dropout, ridge=ridge)  # [I', I']
    rank = min(size, len(chosen))
    _, directions = scipy.linalg.eigh(
        weights.T @ gram @ weights, subset_by_index=(len(chosen) - rank, len(chosen) - 1), check_finite=False
    )
    inputs, outputs = (np.zeros((num_movies, size), np.float32) for _ in range(2))
    inputs[chosen, :rank] = weights @ directions
    outputs[chosen, :rank] = directions
    return LinearAutoencoder(inputs, outputs)


def autoencoder_weights(gram: NDArray[np.float64], *, dropout: float, ridge: float) -> NDArray[np.float64]:
    """Returns B of EDLAE with a diagonal of zeros; without dropout it is EASE (Steck 2019, equation 8).

    Args:
        gram: How many users watched both of two movies. [I, I]
        dropout: p, the share of watched movies hidden.
        ridge: λ.
    """
    regularised = gram.copy()
    regularised[np.diag_indices_from(regularised)] += dropout / (1 - dropout) * np.diag(gram) + ridge
    inverse: NDArray[np.float64] = scipy.linalg.inv(regularised, check_finite=False, overwrite_a=True)
    weights: NDArray[np.float64] = -inverse / np.diag(inverse)
    weights[np.diag_indices_from(weights)] = 0.0
    return weights
