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

from trainer.fits.mean_products import mean_of_products

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
    sampler = _Sampler.start(user_rows, movie_rows, ratings, users, movies, config.rank, rng)
    posterior = _Posterior(np.zeros(users.matrix.shape[1]), np.zeros(movies.matrix.shape[0]))
    for iteration in range(config.iterations):
        progress(iteration, config.iterations)
        sampler.sweep(rng)
        if iteration >= config.iterations - config.kept:
            posterior.add(sampler)
    progress(config.iterations, config.iterations)
    return posterior.mean(users, config.size, rng)


@dataclass(slots=True)
class _Sampler:
    """The chain. Ratings lie in order of their users, n of them; U users, I movies, K factors.

    Attributes:
        starts: Where each user's ratings begin. int64 [U + 1]
        rows: Movie of each rating. int32 [n]
        residuals: What the machine leaves of each rating, but for what is pending. float32 [n]
        users: One side.
        movies: The other.
        mean: w, of all ratings.
        alpha: Precision of the noise.
        pending: What the residuals do not know yet: users' values of the last factor, and what the movies' changed by.
            float32 [U], float32 [I]
        user_moments: Room for those of `_sample_weights`. float32 [U, 2]
        movie_moments: Room for those of `_sample_weights`. float32 [I, 2]
    """

    starts: NDArray[np.int64]
    rows: NDArray[np.int32]
    residuals: Floats
    users: _Side
    movies: _Side
    mean: float
    alpha: float
    pending: tuple[Floats, Floats]
    user_moments: Floats
    movie_moments: Floats

    @classmethod
    def start(
        cls,
        user_rows: NDArray[np.int32],
        movie_rows: NDArray[np.int32],
        ratings: NDArray[np.floating],
        users: Features,
        movies: Features,
        rank: int,
        rng: np.random.Generator,
    ) -> "_Sampler":
        num_users, num_movies = users.matrix.shape[0], movies.matrix.shape[0]
        order = np.lexsort((movie_rows, user_rows))
        starts = np.searchsorted(user_rows[order], np.arange(num_users + 1))
        rows = np.ascontiguousarray(movie_rows[order], np.int32)
        sides = _Side(users, rank), _Side(movies, rank)
        for side in sides:
            side.start(rng)
        mean = float(ratings.mean())
        residuals = (ratings[order] - mean).astype(np.float32)
        for k in range(rank):
            residuals -= sides[0].sums[k][user_rows[order]] * sides[1].sums[k][rows]
        return cls(
            starts,
            rows,
            residuals,
            *sides,
            mean=mean,
            alpha=1.0,
            pending=(np.zeros(num_users, np.float32), np.zeros(num_movies, np.float32)),
            user_moments=np.empty((num_users, 2), np.float32),
            movie_moments=np.empty((num_movies, 2), np.float32),
        )

    def sweep(self, rng: np.random.Generator) -> None:
        """Samples the noise, the priors, all weights, the biases' first, and the mean."""
        squares = float(np.dot(self.residuals, self.residuals))
        self.alpha = rng.gamma(0.5 * (len(self.residuals) + 1.0), 2.0 / (squares + 1.0))
        for side in (self.users, self.movies):
            side.draw_priors(rng)
        # A bias is a factor whose other side is 1.
        user_ones, movie_ones = (
            np.ones(len(self.user_moments), np.float32),
            np.ones(len(self.movie_moments), np.float32),
        )
        rank = self.users.rank
        self._sweep_factor(rank, user_ones, movie_ones, rng)
        for k in range(rank - 1, -1, -1):
            self._sweep_factor(k, self.users.sums[k], self.movies.sums[k], rng)
        self._count_pending(movie_ones)
        self.pending = user_ones, np.zeros(len(self.movie_moments), np.float32)
        shift = rng.normal(self.residuals.mean(), (self.alpha * len(self.residuals)) ** -0.5)
        self.residuals -= np.float32(shift)
        self.mean += float(shift)

    def _sweep_factor(self, k: int, of_users: Floats, of_movies: Floats, rng: np.random.Generator) -> None:
        """Samples the weights of a factor, those of users first.

        `of_users` [U] and `of_movies` [I] are its values, in the memory where sampling changes them.
        """
        self._count_pending(of_movies)
        changes = self.users.sweep(k, self.alpha, self.user_moments, rng)
        _moments_of_movies(self.starts, self.rows, self.residuals, of_movies, changes, of_users, self.movie_moments)
        self.pending = of_users, self.movies.sweep(k, self.alpha, self.movie_moments, rng)

    def _count_pending(self, of_movies: Floats) -> None:
        """Brings the residuals up to date, and gathers the users' moments under the movies' factor [I]."""
        _moments_of_users(self.starts, self.rows, self.residuals, *self.pending, of_movies, self.user_moments)


@dataclass(slots=True)
class _Posterior:
    """The samples that count: biases added up, factors side by side.

    Attributes:
        feature_biases: Of features of users. float64 [F]
        movie_biases: float64 [I]
        factors: Of features of users [K, F] and of movies [K, I], for each sample.
        means: Sum of the global means.
        noise_variances: Sum of 1/α.
    """

    feature_biases: NDArray[np.float64]
    movie_biases: NDArray[np.float64]
    factors: list[tuple[Floats, Floats]] = field(default_factory=list)
    means: float = 0.0
    noise_variances: float = 0.0

    def add(self, sampler: _Sampler) -> None:
        rank = sampler.users.rank
        self.factors.append((sampler.users.weights[:rank].copy(), sampler.movies.sums[:rank].copy()))
        self.feature_biases += sampler.users.weights[rank]
        self.movie_biases += sampler.movies.sums[rank]
        self.means += sampler.mean
        self.noise_variances += 1.0 / sampler.alpha

    def mean(self, users: Features, size: int, rng: np.random.Generator) -> FactorisationMachine:
        """Returns the mean, with vectors of so many coordinates."""
        count = len(self.factors)
        feature_vectors, movie_vectors = mean_of_products(users.matrix, self.factors, size, rng)
        return FactorisationMachine(
            users.matrix @ self.feature_biases / count,
            (self.movie_biases + self.means) / count,
            users.matrix @ feature_vectors,
            movie_vectors,
            self.feature_biases / count,
            feature_vectors,
            self.noise_variances / count,
        )
