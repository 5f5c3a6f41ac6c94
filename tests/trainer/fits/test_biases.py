"""Damped biases are shrunk means of what the other side leaves."""

import numpy as np
import pytest

from trainer.dataset import Interactions
from trainer.fits.biases import fit_damped_biases


def rows(users: list[int], movies: list[int], stars: list[float]) -> Interactions:
    return Interactions(
        np.array(users, np.int32),
        np.array(movies, np.int32),
        np.array(stars, np.float32),
        np.zeros(len(users), np.int64),
    )


def test_one_movie_is_pulled_to_the_mean_by_its_damping() -> None:
    """Two users, three movies of mean 3: one sweep, by hand."""
    rated = rows([0, 0, 1, 1], [0, 1, 0, 2], [5, 3, 3, 1])

    biases = fit_damped_biases(rated, 2, 4, user_damping=2, movie_damping=1, sweeps=1)

    assert biases.global_mean == 3
    assert biases.movie_biases == pytest.approx([2 / 3, 0, -1, 0])
    # User 0 is left with 2 - 2/3 and 0, user 1 with 0 - 2/3 and -2 + 1.
    assert biases.user_biases == pytest.approx([(4 / 3) / 4, (-5 / 3) / 4])


def test_residuals_are_what_the_biases_leave() -> None:
    """Mean, biases and residual add up to the rating."""
    rng = np.random.default_rng(0)
    rated = rows(list(rng.integers(0, 9, 50)), list(rng.integers(0, 7, 50)), list(rng.integers(1, 6, 50)))

    biases = fit_damped_biases(rated, 9, 7)
    explained = biases.global_mean + biases.user_biases[rated.user_rows] + biases.movie_biases[rated.movie_rows]

    assert biases.residuals(rated) + explained == pytest.approx(rated.ratings)


def test_without_damping_a_table_of_sums_is_explained_wholly() -> None:
    """Ratings that are a user's part plus a movie's part leave nothing."""
    users, movies = np.divmod(np.arange(20), 5)
    rated = rows(list(users), list(movies), list(2 + 0.3 * users + 0.2 * movies))

    biases = fit_damped_biases(rated, 4, 5, user_damping=0, movie_damping=0)

    assert biases.residuals(rated) == pytest.approx(np.zeros(20), abs=1e-6)
