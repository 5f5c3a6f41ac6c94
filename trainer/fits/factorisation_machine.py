"""Fits a Bayesian factorisation machine by Gibbs sampling. Knows ratings, rows and features of two sides; no movie.

Rating of (u, i) ~ N(w + x_u·a + z_i·b + (x_u A)·(z_i B), 1/α) with sparse features x_u of a user and z_i of a movie
(Rendle 2012, "Factorization Machines with libFM", section 3.3, without the interactions inside one side, which a user's
features do not need: docs/experiments.md, 2026-11-21). Each group of features, of each column of A and B, has a normal
prior of its own, whose mean and precision are sampled too. Since a sample is a dot product plus biases, so is the mean
of all samples: the samples side by side.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import scipy.sparse
from numba import njit
from numpy.typing import NDArray

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Features:
    """Features of one side, in groups that share a prior.

    Attributes:
        matrix: One row a user (or movie). Sparse [N, F]
        groups: Group of each feature, counted from 0. int64 [F]
    """

    matrix: scipy.sparse.csc_array[Any]
    groups: NDArray[np.int64]

    @classmethod
    def of(cls, *blocks: scipy.sparse.csr_array[Any]) -> "Features":
        """Puts blocks side by side; each is a group."""
        matrix = scipy.sparse.csc_array(scipy.sparse.hstack(blocks, format="csc"), dtype=np.float32)
        return cls(matrix, np.repeat(np.arange(len(blocks)), [block.shape[1] for block in blocks]))


@dataclass(frozen=True, slots=True)
class MachineConfig:
    """How long is sampled, and how much.

    Attributes:
        rank: Columns of A and B, 1 or more.
        iterations: Sweeps over all weights, 1 or more.
        kept: Sweeps at the end that count, 1 up to `iterations`.
        size: Coordinates of the vectors that are given back, 1 or more.
    """

    rank: int
    iterations: int
    kept: int
    size: int


@dataclass(frozen=True, slots=True)
class FactorisationMachine:
    """The posterior mean: the rating of (u, i) is user_biases[u] + movie_biases[i] + user_vectors[u]·movie_vectors[i].

    Attributes:
        user_biases: float64 [U]
        movie_biases: The global mean included. float64 [I]
        user_vectors: float32 [U, R]
        movie_vectors: float32 [I, R]
        user_feature_biases: What each feature of a user adds to his bias. float64 [F]
        user_feature_vectors: What each feature of a user adds to his vector. float32 [F, R]
        noise_variance: Mean of 1/α over the kept sweeps, in units of the ratings squared.
    """

    user_biases: NDArray[np.float64]
    movie_biases: NDArray[np.float64]
    user_vectors: Floats
    movie_vectors: Floats
    user_feature_biases: NDArray[np.float64]
    user_feature_vectors: Floats
    noise_variance: float


@dataclass(slots=True)
class _Side:
    """The state of one side: weights of its features, column K being the biases', and what they add up to.

    N users or movies, F features, G groups, K factors.
    """

    features: Features
    rank: int
    weights: Floats = field(init=False)  # [K + 1, F]
    sums: Floats = field(init=False)  # [K + 1, N], features times weights
    means: Floats = field(init=False)  # [K + 1, G]
    precisions: Floats = field(init=False)  # [K + 1, G]

    def start(self, rng: np.random.Generator) -> None:
        num_features, num_groups = self.features.matrix.shape[1], int(self.features.groups.max()) + 1
        self.weights = rng.normal(0, 0.1, (self.rank + 1, num_features)).astype(np.float32)
        self.weights[self.rank] = 0.0
        self.sums = np.ascontiguousarray((self.features.matrix @ self.weights.T).T, np.float32)
        self.means = np.zeros((self.rank + 1, num_groups), np.float32)
        self.precisions = np.full((self.rank + 1, num_groups), 10.0, np.float32)

    def draw_priors(self, rng: np.random.Generator) -> None:
        """Samples each group's mean and precision under the normal-gamma prior of libFM (all its constants 1)."""
        groups = self.features.groups
        sizes = np.bincount(groups).astype(np.float64)  # [G]
        for k in range(self.rank + 1):
            weights = self.weights[k].astype(np.float64)
            spread = np.bincount(groups, (weights - self.means[k][groups]) ** 2)
            rate = 0.5 * (spread + self.means[k].astype(np.float64) ** 2 + 1.0)
            precisions = rng.gamma(0.5 * (sizes + 2.0), 1.0 / rate)
            centres = np.bincount(groups, weights) / (sizes + 1.0)
            self.precisions[k] = precisions
            self.means[k] = rng.normal(centres, 1.0 / np.sqrt((sizes + 1.0) * precisions))

    def sweep(self, k: int, alpha: float, moments: Floats, rng: np.random.Generator) -> Floats:
        """Samples the weights of factor k, given the moments [N, 2] of its cells; returns what the sums change by."""
        before = self.sums[k].copy()
        matrix = self.features.matrix
        noise: Floats = rng.standard_normal((matrix.shape[1],), np.float32)
        _sample_weights(
            matrix.indptr,
            matrix.indices,
            matrix.data,
            self.features.groups,
            self.means[k],
            self.precisions[k],
            alpha,
            moments,
            noise,
            self.weights[k],
            self.sums[k],
        )
        changes: Floats = self.sums[k] - before
        return changes


@njit(cache=True, fastmath=True)
def _sample_weights(
    starts: NDArray[np.int32],
    rows: NDArray[np.int32],
    values: Floats,
    groups: NDArray[np.int64],
    means: Floats,
    precisions: Floats,
    alpha: float,
    moments: Floats,
    noise: Floats,
    weights: Floats,
    sums: Floats,
) -> None:
    """Draws each weight in turn from its conditional: Rendle 2012, equations 28 to 30.

    moments[n] holds Σ e·c and Σ c² over the ratings of row n, e the residual and c the other side's factor: all that
    the ratings say of the features of row n, so that a feature costs its non-zeros and not its ratings.
    """
    for feature in range(len(weights)):
        gain, curvature = np.float32(0.0), np.float32(0.0)
        for place in range(starts[feature], starts[feature + 1]):
            value, row = values[place], rows[place]
            gain += value * moments[row, 0]
            curvature += value * value * moments[row, 1]
        group = groups[feature]
        precision = precisions[group] + alpha * curvature
        centre = (alpha * (gain + weights[feature] * curvature) + precisions[group] * means[group]) / precision
        drawn = centre + noise[feature] / np.sqrt(precision)
        change = drawn - weights[feature]
        weights[feature] = drawn
        for place in range(starts[feature], starts[feature + 1]):
            value, row = values[place], rows[place]
            moments[row, 0] -= value * change * moments[row, 1]
            sums[row] += value * change


@njit(cache=True, fastmath=True)
def _moments_of_users(
    starts: NDArray[np.int64],
    movies: NDArray[np.int32],
    residuals: Floats,
    users_then: Floats,
    changes_then: Floats,
    movies_now: Floats,
    moments: Floats,
) -> None:
    """Brings the residuals up to date after movies changed in the factor before, and gathers the users' moments."""
    for user in range(len(starts) - 1):
        gain, curvature, factor = np.float32(0.0), np.float32(0.0), users_then[user]
        for place in range(starts[user], starts[user + 1]):
            movie = movies[place]
            residual = residuals[place] - factor * changes_then[movie]
            residuals[place] = residual
            other = movies_now[movie]
            gain += residual * other
            curvature += other * other
        moments[user, 0] = gain
        moments[user, 1] = curvature


@njit(cache=True, fastmath=True)
def _moments_of_movies(
    starts: NDArray[np.int64],
    movies: NDArray[np.int32],
    residuals: Floats,
    movies_now: Floats,
    changes: Floats,
    users_now: Floats,
    moments: Floats,
) -> None:
    """Brings the residuals up to date after users changed in this factor, and gathers the movies' moments."""
    moments[:] = 0.0
    for user in range(len(starts) - 1):
        change, other = changes[user], users_now[user]
        for place in range(starts[user], starts[user + 1]):
            movie = movies[place]
            residual = residuals[place] - change * movies_now[movie]
            residuals[place] = residual
            moments[movie, 0] += residual * other
            moments[movie, 1] += other * other


def fit_factorisation_machine(
    user_rows: NDArray[np.int32],
    movie_rows: NDArray[np.int32],
    ratings: NDArray[np.floating],
    users: Features,
    movies: Features,
    config: MachineConfig,
    rng: np.random.Generator,
    progress: Callable[[int, int], None],
) -> FactorisationMachine:
    """Samples from the posterior and returns its mean.

    Args:
        user_rows: User of each rating. [n]
        movie_rows: Movie of each rating. [n]
        ratings: Of a standard deviation near 1, as the prior on the noise expects. [n]
        users: Features of every user.
        movies: Features of every movie.
        config: Sizes.
        rng: All chance comes from it.
        progress: Called with (sweeps done, sweeps in all).
    """
    num_users, num_movies, rank = users.matrix.shape[0], movies.matrix.shape[0], config.rank
    order = np.lexsort((movie_rows, user_rows))
    starts = np.searchsorted(user_rows[order], np.arange(num_users + 1))
    columns = np.ascontiguousarray(movie_rows[order], np.int32)
    sides = _Side(users, rank), _Side(movies, rank)
    for side in sides:
        side.start(rng)
    of_users, of_movies = sides
    mean = float(ratings.mean())
    residuals = (ratings[order] - mean).astype(np.float32)
    for k in range(rank):
        residuals -= of_users.sums[k][user_rows[order]] * of_movies.sums[k][columns]
    ones = np.ones(num_users, np.float32), np.ones(num_movies, np.float32)
    pending = np.zeros(num_users, np.float32), np.zeros(num_movies, np.float32)
    moments = np.empty((num_users, 2), np.float32), np.empty((num_movies, 2), np.float32)
    kept: list[tuple[Floats, Floats]] = []
    feature_biases, movie_biases = np.zeros(users.matrix.shape[1]), np.zeros(num_movies)
    means, noise_variances = 0.0, 0.0
    for iteration in range(config.iterations):
        progress(iteration, config.iterations)
        squares = float(np.dot(residuals, residuals))
        alpha = rng.gamma(0.5 * (len(residuals) + 1.0), 2.0 / (squares + 1.0))
        for side in sides:
            side.draw_priors(rng)
        for k in range(rank, -1, -1):  # the biases first
            linear = k == rank
            _moments_of_users(
                starts, columns, residuals, *pending, ones[1] if linear else of_movies.sums[k], moments[0]
            )
            changes = of_users.sweep(k, alpha, moments[0], rng)
            others = ones[0] if linear else of_users.sums[k]
            _moments_of_movies(
                starts, columns, residuals, ones[1] if linear else of_movies.sums[k], changes, others, moments[1]
            )
            pending = others, of_movies.sweep(k, alpha, moments[1], rng)
        _moments_of_users(starts, columns, residuals, *pending, ones[1], moments[0])
        pending = ones[0], np.zeros(num_movies, np.float32)
        shift = rng.normal(residuals.mean(), (alpha * len(residuals)) ** -0.5)
        residuals -= np.float32(shift)
        mean += float(shift)
        if iteration >= config.iterations - config.kept:
            kept.append((of_users.weights[:rank].copy(), of_movies.sums[:rank].copy()))
            feature_biases += of_users.weights[rank]
            movie_biases += of_movies.sums[rank]
            means += mean
            noise_variances += 1.0 / alpha
    progress(config.iterations, config.iterations)
    count = len(kept)
    feature_vectors, movie_vectors = _mean_of_products(users.matrix, kept, config.size, rng)
    return FactorisationMachine(
        users.matrix @ feature_biases / count,
        (movie_biases + means) / count,
        users.matrix @ feature_vectors,
        movie_vectors,
        feature_biases / count,
        feature_vectors,
        noise_variances / count,
    )


def _mean_of_products(
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
