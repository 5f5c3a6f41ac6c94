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
    """Prior mean = Σ_f from_profile[rows[f]] + √n / (n + d) · Σ_j implicit[j] over his n watched movies.

    Attributes:
        from_profile: Row 0, for an unknown field, is zeros: the average of those whose field is known. float32 [P, R]
        implicit: float32 [I, R]
    """

    from_profile: NDArray[np.float32]
    implicit: NDArray[np.float32]


def fit_user_prior(
    vectors: NDArray[np.float32],
    profile_rows: NDArray[np.int64],
    num_profile_rows: int,
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
        profile_rows: For each field f the row of the user's value, 0 if unknown; fields share no other row. [U, f]
        num_profile_rows: P, row 0 included.
        user_rows: User of each watched movie. [n]
        movie_rows: Movie of each watched movie. [n]
        num_movies: Movies.
        profile_ridge: Users' worth of evidence that a flag changes nothing.
        implicit_ridge: The same for a watched movie.
        implicit_damping: d, watched movies at which the implicit part reaches half its strength.
        max_movies: Only so many movies, those watched most, get a row; the time is cubic in it.
    """
    num_users = len(vectors)
    from_profile = np.zeros((num_profile_rows, vectors.shape[1]))  # [P, R]
    flags = np.zeros((num_users, num_profile_rows))
    for rows in profile_rows.T:
        flags[np.arange(num_users), rows] = 1.0
        # Less its share among those whose field is known, a field says nothing about the average user.
        known = rows > 0
        shares = np.bincount(rows[known], minlength=num_profile_rows) / max(1, int(known.sum()))
        flags[known] -= shares
    flags[:, 0] = 0.0
    gram = flags.T @ flags + profile_ridge * np.eye(num_profile_rows)
    coefficients = np.linalg.solve(gram, flags.T @ vectors)  # [P, R]
    left = vectors - flags @ coefficients  # [U, R]
    for rows in profile_rows.T:
        known = rows > 0
        shares = np.bincount(rows[known], minlength=num_profile_rows) / max(1, int(known.sum()))
        values = np.unique(rows[known])
        from_profile[values] = coefficients[values] - shares @ coefficients

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
    return UserPrior(from_profile.astype(np.float32), implicit)
