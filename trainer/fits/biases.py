"""Fits a global mean and damped user and movie biases. Knows ratings and rows; knows no feature and no vector."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trainer.dataset import Interactions


@dataclass(frozen=True, slots=True)
class DampedBiases:
    """A rating as global mean + user bias + movie bias.

    Attributes:
        global_mean: Mean rating, in stars.
        user_biases: By user row, 0 for a user without ratings. float64 [U]
        movie_biases: By movie row, 0 for a movie without ratings. float64 [I]
    """

    global_mean: float
    user_biases: NDArray[np.float64]
    movie_biases: NDArray[np.float64]

    def residuals(self, rated: Interactions) -> NDArray[np.float64]:
        """Returns what the biases leave unexplained of each rating, in stars. [n]."""
        predicted = self.global_mean + self.user_biases[rated.user_rows] + self.movie_biases[rated.movie_rows]
        return rated.ratings.astype(np.float64) - predicted


def fit_damped_biases(
    rated: Interactions,
    num_users: int,
    num_movies: int,
    *,
    user_damping: float = 5.0,
    movie_damping: float = 3.0,
    sweeps: int = 10,
) -> DampedBiases:
    """Alternates movie and user means of what the other leaves, each shrunk to 0 (Funk 2006; Koren 2010, section 2.1).

    Args:
        rated: Rows with a rating each, at least one.
        num_users: Users of the data set, also those without a row.
        num_movies: Movies of the data set, also those without a row.
        user_damping: Ratings of 0 that each user is given beside his own. The recipe's search on ML-100K and ML-1M.
        movie_damping: The same for movies.
        sweeps: Alternations; the change after ten is below 1e-4 stars on MovieLens.
    """
    ratings = rated.ratings.astype(np.float64)
    global_mean = float(ratings.mean())
    centred = ratings - global_mean
    user_biases, movie_biases = np.zeros(num_users), np.zeros(num_movies)
    user_counts = np.bincount(rated.user_rows, minlength=num_users) + user_damping
    movie_counts = np.bincount(rated.movie_rows, minlength=num_movies) + movie_damping
    for _ in range(sweeps):
        left = centred - user_biases[rated.user_rows]
        movie_biases = np.bincount(rated.movie_rows, left, num_movies) / movie_counts
        left = centred - movie_biases[rated.movie_rows]
        user_biases = np.bincount(rated.user_rows, left, num_users) / user_counts
    return DampedBiases(global_mean, user_biases, movie_biases)
