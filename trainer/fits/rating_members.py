"""Fits the members of `marquee`'s rating head, each a dot product plus biases, and blends them. Knows no serving."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse
from numpy.typing import NDArray

from trainer.dataset import Interactions
from trainer.fits.biases import fit_damped_biases
from trainer.fits.factorisation_machine import Features, MachineConfig, fit_factorisation_machine
from trainer.fits.item_autoencoder import AutoencoderConfig, fit_item_autoencoder
from trainer.fits.trained_rows import TrainedRows
from two_tower.models.marquee_content import movie_content, num_profile_rows, profile_rows

RESIDUAL_SPREAD = 0.92
"""Standard deviation, in stars, of what biases leave on MovieLens; other scales are brought to it, as the constants of
the members were found there."""


@dataclass(frozen=True, slots=True)
class Member:
    """A rating, in stars, as user_biases[u] + movie_biases[i] + user_vectors[u]·movie_vectors[i].

    Attributes:
        user_vectors: float64 [U, D]
        movie_vectors: float64 [I, D]
        user_biases: float64 [U]
        movie_biases: The global mean included. float64 [I]
        noise_variance: What the member believes that ratings scatter by, stars²; None if it believes nothing.
    """

    user_vectors: NDArray[np.float64]
    movie_vectors: NDArray[np.float64]
    user_biases: NDArray[np.float64]
    movie_biases: NDArray[np.float64]
    noise_variance: float | None = None


@dataclass(frozen=True, slots=True)
class RatedRows:
    """The rows that the members learn from.

    Attributes:
        trained: All rows.
        rated: Those with a rating, at least one.
        unit: Stars that count as one for the members.
    """

    trained: TrainedRows
    rated: Interactions
    unit: float


def blend(members: Sequence[tuple[float, Member]]) -> Member:
    """Returns the weighted mean of members as one: vectors side by side, biases added up."""
    total = sum(weight for weight, _ in members)
    shares = [(weight / total, member) for weight, member in members]
    return Member(
        np.concatenate([member.user_vectors for _, member in shares], axis=1),
        np.concatenate([share * member.movie_vectors for share, member in shares], axis=1),
        np.sum([share * member.user_biases for share, member in shares], axis=0),
        np.sum([share * member.movie_biases for share, member in shares], axis=0),
        next((member.noise_variance for _, member in members if member.noise_variance is not None), None),
    )


def fit_tower(
    rows: RatedRows,
    content: NDArray[np.float32],
    config: AutoencoderConfig,
    rng: np.random.Generator,
    progress: Callable[[int, int], None],
) -> Member:
    """Fits the neural movie tower to what damped biases leave.

    Args:
        rows: Rows.
        content: Content features of the movies. [I, F]
        config: Of the tower.
        rng: For the tower.
        progress: Called with (epochs done, epochs in all).
    """
    trained, rated = rows.trained, rows.rated
    biases = fit_damped_biases(rated, trained.num_users, trained.num_movies)
    tower = fit_item_autoencoder(
        rated.user_rows,
        rated.movie_rows,
        (biases.residuals(rated) / rows.unit).astype(np.float32),
        content,
        trained.num_users,
        config,
        rng,
        progress,
    )
    return Member(
        tower.user_vectors.double().numpy() * rows.unit,
        tower.hidden.double().numpy(),
        biases.user_biases + rows.unit * tower.user_biases.double().numpy(),
        biases.global_mean + biases.movie_biases + rows.unit * tower.movie_biases.double().numpy(),
    )


def fit_machine(
    rows: RatedRows, config: MachineConfig, rng: np.random.Generator, progress: Callable[[int, int], None]
) -> Member:
    """Fits the Bayesian factorisation machine.

    Args:
        rows: Rows.
        config: Of the machine.
        rng: For the machine.
        progress: Called with (sweeps done, sweeps in all).
    """
    users, movies = machine_features(rows.trained)
    machine = fit_factorisation_machine(
        rows.rated.user_rows,
        rows.rated.movie_rows,
        rows.rated.ratings / rows.unit,
        users,
        movies,
        config,
        rng,
        progress,
    )
    return Member(
        machine.user_vectors.astype(np.float64) * rows.unit,
        machine.movie_vectors.astype(np.float64),
        machine.user_biases * rows.unit,
        machine.movie_biases * rows.unit,
        machine.noise_variance * rows.unit**2,
    )


def machine_features(trained: TrainedRows) -> tuple[Features, Features]:
    """Returns what the recipe tells the machine of users and movies.

    A user: himself; the movies that he watched, n_u^-½ each; gender, age band and occupation. A movie: itself; who
    watched it, n_i^-½ each; genres, each the root of their number; the five years that it was released in.
    """
    rows = trained.interactions
    num_users, num_movies = trained.num_users, trained.num_movies
    ones = np.ones(len(rows), np.float32)
    watched = scipy.sparse.csr_array((ones, (rows.user_rows, rows.movie_rows)), shape=(num_users, num_movies))
    flags = profile_rows(trained.profiles, trained.encoder)  # [U, 3]
    owners = np.repeat(np.arange(num_users), flags.shape[1])
    profiles = scipy.sparse.csr_array(
        (np.ones(flags.size, np.float32), (owners, flags.ravel())), shape=(num_users, num_profile_rows(trained.encoder))
    )
    content = movie_content(trained.movies, trained.encoder)
    num_genres = len(trained.encoder.genres) - 1
    genres, years = content[:, :num_genres], content[:, num_genres:-1]
    genres = genres / np.sqrt(np.maximum(genres.sum(axis=1, keepdims=True), 1))
    bins = years - np.pad(years[:, 1:], ((0, 0), (0, 1)))  # thresholds reached become the last one reached
    return (
        Features.of(_identity(num_users), _scaled(watched), profiles[:, 1:]),
        Features.of(
            _identity(num_movies),
            _scaled(watched.T.tocsr()),
            scipy.sparse.csr_array(genres),
            scipy.sparse.csr_array(bins),
        ),
    )


def _identity(size: int) -> scipy.sparse.csr_array[Any]:
    return scipy.sparse.csr_array(scipy.sparse.eye_array(size))


def _scaled(rows: scipy.sparse.csr_array[Any]) -> scipy.sparse.csr_array[Any]:
    """Divides each row by the root of its entries."""
    counts = np.maximum(np.diff(rows.indptr), 1)
    return scipy.sparse.csr_array(scipy.sparse.diags_array(counts**-0.5) @ rows)
