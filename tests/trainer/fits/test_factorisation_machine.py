"""The sampler draws from the posterior that it says it draws from, and finds what was planted."""

import numpy as np
import pytest
import scipy.sparse

from trainer.fits.factorisation_machine import (
    FactorisationMachine,
    Features,
    MachineConfig,
    _sample_weights,
    fit_factorisation_machine,
)


def one_hot(size: int) -> Features:
    return Features.of(scipy.sparse.csr_array(scipy.sparse.eye_array(size)))


def predicted(machine: FactorisationMachine, users: np.ndarray, movies: np.ndarray) -> np.ndarray:
    dots = (machine.user_vectors[users] * machine.movie_vectors[movies]).sum(axis=1)
    found: np.ndarray = machine.user_biases[users] + machine.movie_biases[movies] + dots
    return found


def planted(rng: np.random.Generator, num_users: int, num_movies: int) -> np.ndarray:
    """Biases plus two factors: [U, I]."""
    factors = rng.normal(0, 0.7, (num_users, 2)) @ rng.normal(0, 0.7, (2, num_movies))
    return 3.5 + rng.normal(0, 0.5, (num_users, 1)) + rng.normal(0, 0.5, (1, num_movies)) + factors


def test_planted_biases_and_factors_are_recovered() -> None:
    """From 30% of the cells with noise .3, the others are foretold nearly to what the noise leaves knowable."""
    rng = np.random.default_rng(0)
    truth = planted(rng, 120, 80)
    users, movies = np.nonzero(rng.random(truth.shape) < 0.3)
    ratings = truth[users, movies] + rng.normal(0, 0.3, len(users))

    machine = fit_factorisation_machine(
        users.astype(np.int32),
        movies.astype(np.int32),
        ratings,
        one_hot(120),
        one_hot(80),
        MachineConfig(rank=4, iterations=150, kept=100, size=4),
        rng,
        lambda done, total: None,
    )

    every_user, every_movie = np.divmod(np.arange(truth.size), 80)
    errors = predicted(machine, every_user, every_movie) - truth.ravel()
    assert np.sqrt((errors**2).mean()) < 0.2
    assert machine.noise_variance == pytest.approx(0.09, rel=0.25)


def test_features_tell_of_users_without_ratings() -> None:
    """Half of the users rate nothing; a flag that decides everything is learned from the other half."""
    rng = np.random.default_rng(1)
    flags = np.arange(60) % 2
    users, movies = np.divmod(np.arange(30 * 20), 20)
    ratings = 3.0 + np.where(flags[users] == movies % 2, 1.0, -1.0) + rng.normal(0, 0.2, len(users))
    side = Features.of(
        scipy.sparse.csr_array(scipy.sparse.eye_array(60)),
        scipy.sparse.csr_array(np.eye(2, dtype=np.float32)[flags]),
    )

    machine = fit_factorisation_machine(
        users.astype(np.int32),
        movies.astype(np.int32),
        ratings,
        side,
        one_hot(20),
        MachineConfig(rank=3, iterations=120, kept=80, size=3),
        rng,
        lambda done, total: None,
    )

    unseen, every_movie = np.divmod(np.arange(30 * 20), 20)
    unseen = unseen + 30
    truth = 3.0 + np.where(flags[unseen] == every_movie % 2, 1.0, -1.0)
    assert np.abs(predicted(machine, unseen, every_movie) - truth).mean() < 0.2


def test_weights_are_drawn_from_their_conjugate_posterior() -> None:
    """One factor, the other side held fixed: mean and covariance are those of a Bayesian regression, solved densely."""
    rng = np.random.default_rng(2)
    rows, values = np.repeat(np.arange(4), 3), rng.normal(0, 1, 12).astype(np.float32)
    features = np.array([[1, 0, 0.5], [0, 1, 0.5], [1, 1, 0], [0, 0, 1]], np.float32)
    targets = rng.normal(0, 1, 12).astype(np.float32)
    alpha, prior_mean, prior_precision = 2.0, 0.3, 1.5
    design = features[rows] * values[:, None]  # the ratings' design, which the sampler never forms
    precision = prior_precision * np.eye(3) + alpha * design.T @ design
    covariance = np.linalg.inv(precision)
    mean = covariance @ (prior_precision * prior_mean + alpha * design.T @ targets)

    sparse = scipy.sparse.csc_array(features)
    weights, sums = np.zeros(3, np.float32), np.zeros(4, np.float32)
    drawn = []
    for _ in range(20_000):
        residuals = targets - sums[rows] * values
        moments = np.stack([np.bincount(rows, residuals * values), np.bincount(rows, values**2)], axis=1)
        _sample_weights(
            sparse.indptr,
            sparse.indices,
            sparse.data,
            np.zeros(3, np.int64),
            np.array([prior_mean], np.float32),
            np.array([prior_precision], np.float32),
            alpha,
            moments.astype(np.float32),
            rng.standard_normal(3).astype(np.float32),
            weights,
            sums,
        )
        drawn.append(weights.copy())

    assert np.mean(drawn, axis=0) == pytest.approx(mean, abs=0.03)
    assert np.cov(np.array(drawn).T) == pytest.approx(covariance, abs=0.02)
    assert sums == pytest.approx(features @ weights, abs=1e-3)


def test_the_same_seed_gives_the_same_machine() -> None:
    """All chance comes from the generator."""
    truth = planted(np.random.default_rng(0), 20, 15)
    users, movies = np.divmod(np.arange(300), 15)

    def fit() -> FactorisationMachine:
        return fit_factorisation_machine(
            users.astype(np.int32),
            movies.astype(np.int32),
            truth.ravel(),
            one_hot(20),
            one_hot(15),
            MachineConfig(rank=2, iterations=5, kept=3, size=2),
            np.random.default_rng(3),
            lambda done, total: None,
        )

    assert np.array_equal(fit().movie_vectors, fit().movie_vectors)
