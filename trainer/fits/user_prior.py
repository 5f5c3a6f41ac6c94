"""Fits what is expected of a user before he has rated anything: from his profile and from which movies he watched.

Knows flags, watched movies and user vectors; knows no rating.
"""

from dataclasses import dataclass

import numpy as np
import scipy.linalg
import scipy.sparse
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class UserPrior:
    """Prior mean = (flags - shares)·from_profile + √n / (n + d) · Σ_j implicit[j] over his n watched movies.

    Attributes:
        shares: Share of each flag among users whose field is known. float32 [P]
        from_profile: float32 [P, R]
        implicit: float32 [I, R]
    """

    shares: NDArray[np.float32]
    from_profile: NDArray[np.float32]
    implicit: NDArray[np.float32]


def fit_user_prior(
    vectors: NDArray[np.float32],
    flags: NDArray[np.float32],
    flag_known: NDArray[np.float32],
    user_rows: NDArray[np.int32],
    movie_rows: NDArray[np.int32],
    num_movies: int,
    *,
    profile_ridge: float,
    implicit_ridge: float,
    implicit_damping: float,
    max_movies: int,
) -> UserPrior:
    """Regresses trained user vectors on profile flags, then what is left of them on watched movies.

    Args:
        vectors: Whitened user vectors, of mean about 0. [U, R]
        flags: Profile flags. [U, P]
        flag_known: Whether the field of each flag is known. [U, P]
        user_rows: User of each watched movie. [n]
        movie_rows: Movie of each watched movie. [n]
        num_movies: Movies.
        profile_ridge: Users' worth of evidence that a flag changes nothing.
        implicit_ridge: The same for a watched movie.
        implicit_damping: d, watched movies at which the implicit part reaches half its strength.
        max_movies: Only so many movies, those watched most, get a row; the time is cubic in it.
    """
    num_users = len(vectors)
    shares = flags.sum(0) / np.maximum(flag_known.sum(0), 1)  # [P]
    centred = (flags - flag_known * shares).astype(np.float64)  # [U, P]
    gram = centred.T @ centred + profile_ridge * np.eye(centred.shape[1])
    from_profile = np.linalg.solve(gram, centred.T @ vectors)  # [P, R]
    left = vectors - centred @ from_profile  # [U, R]

    counts = np.bincount(movie_rows, minlength=num_movies)
    chosen = np.sort(np.argsort(-counts, kind="stable")[: min(max_movies, num_movies)])
    sizes = np.bincount(user_rows, minlength=num_users)
    scales = np.sqrt(sizes) / (sizes + implicit_damping)
    watched = scipy.sparse.csr_matrix((scales[user_rows], (user_rows, movie_rows)), shape=(num_users, num_movies))[
        :, chosen
    ]
    implicit_gram = (watched.T @ watched).toarray()
    implicit_gram[np.diag_indices_from(implicit_gram)] += implicit_ridge
    implicit = np.zeros((num_movies, vectors.shape[1]), np.float32)
    implicit[chosen] = scipy.linalg.solve(implicit_gram, watched.T @ left, assume_a="pos", check_finite=False)
    return UserPrior(shares.astype(np.float32), from_profile.astype(np.float32), implicit)
