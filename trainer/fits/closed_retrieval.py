"""Solves what LL is blended with: EASE and a sequential ridge over the same two memories, cut to one rank.

Knows sequences of movie rows; knows no softmax, content or serving form.
"""

from dataclasses import dataclass

import numpy as np
import scipy.sparse
from numpy.typing import NDArray

from trainer.fits.edlae import autoencoder_weights
from trainer.fits.sequential_ridge import Sequences, fit_sequential_ridge, history_weights

_MAX_STATES = 16_000
"""Histories that the scores are scaled and cut by; a user gives his whole history and some of its beginnings."""

_CUTS_PER_USER = 8
_SPARE_DIRECTIONS = 16
_ROUNDS = 4
"""Of subspace iteration; three give the same NDCG@10 to .0005 (docs/experiments.md, 2026-11-21)."""


@dataclass(frozen=True, slots=True)
class ClosedFormConfig:
    """Constants; `trainer.fits.marquee_options.Options` documents them.

    Attributes:
        max_movies: Only so many movies, those watched most, take part.
        max_history: Older events of a user are left out.
    """

    size: int
    max_movies: int
    ease_ridge: float
    sequential_ridge: float
    popularity_power: float
    short_decay: float
    long_decay: float
    flat_gain: float
    max_history: int = 1000


@dataclass(frozen=True, slots=True)
class ClosedForm:
    """A factored head: score_i = (Σ_j w_1(a_j)·short[j] + w_2(a_j)·long[j]) · vectors[i], a_j events newer than j.

    Movies that take no part have rows of zeros. Each of its two parts has scores of standard deviation 1 before the
    factor of popularity.

    Attributes:
        short: float32 [I, K]
        long: float32 [I, K]
        vectors: float32 [I, K]
    """

    short: NDArray[np.float32]
    long: NDArray[np.float32]
    vectors: NDArray[np.float32]


def fit_closed_form(
    user_rows: NDArray[np.int32],
    movie_rows: NDArray[np.int32],
    event_times_ms: NDArray[np.int64],
    num_movies: int,
    config: ClosedFormConfig,
    rng: np.random.Generator,
) -> ClosedForm:
    """Solves both parts and keeps the directions in which histories score (the recipe's closed form).

    EASE (Steck 2019) enters through the long memory. Movie i's score is multiplied by (n_i + 1)^-p.

    Args:
        user_rows: [n]
        movie_rows: [n]
        event_times_ms: [n]
        num_movies: Movies, also those without events.
        config: Constants.
        rng: Draws the order of ties and the histories to cut by.
    """
    counts = np.bincount(movie_rows, minlength=num_movies)
    chosen = most_watched(counts, config.max_movies)
    drawn = Sequences.draw(user_rows, movie_rows, event_times_ms, rng)
    sequences = drawn.among(chosen, num_movies)
    decays = (config.short_decay, config.long_decay, config.flat_gain)
    states, last = _some_states(sequences, len(chosen), decays, config.max_history, rng)
    weights = fit_sequential_ridge(
        sequences,
        len(chosen),
        short_decay=config.short_decay,
        long_decay=config.long_decay,
        flat_gain=config.flat_gain,
        ridge=config.sequential_ridge,
        max_history=config.max_history,
        rng=rng,
    )  # [2 I', I']
    weights /= max(float((states[last] @ weights).std()), 1e-12)
    watched = _watched_together(user_rows, movie_rows, num_movies, chosen)
    together = autoencoder_weights(watched, dropout=0.0, ridge=config.ease_ridge)  # [I', I']
    together /= max(float((states[last][:, len(chosen) :] @ together).std()), 1e-12)
    weights[len(chosen) :] += together
    weights *= ((counts[chosen] + 1.0) ** -config.popularity_power).astype(np.float32)
    inputs, directions = cut_to_rank(weights, states, min(config.size, len(chosen)), rng)
    tables = np.zeros((3, num_movies, directions.shape[1]), np.float32)
    for table, rows in zip(tables, (inputs[: len(chosen)], inputs[len(chosen) :], directions), strict=True):
        table[chosen] = rows
    return ClosedForm(*tables)


def most_watched(counts: NDArray[np.integer], at_most: int) -> NDArray[np.int64]:
    """Returns the movies with most events, in the order of their rows."""
    return np.sort(np.argsort(-counts, kind="stable")[:at_most])


def cut_to_rank(
    weights: NDArray[np.float32], states: scipy.sparse.csr_matrix, size: int, rng: np.random.Generator
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Returns B·V and V, V the leading eigenvectors of BᵀSᵀSB: no rank loses less of the scores S·B (recipe).

    V comes from subspace iteration on random directions (Halko, Martinsson & Tropp 2011, algorithm 4.4).

    Args:
        weights: B. [F, I]
        states: S. [n, F]
        size: Rank, at most I.
        rng: Draws the directions.
    """
    num_movies = weights.shape[1]
    width = min(size + _SPARE_DIRECTIONS, num_movies)
    directions = np.linalg.qr(rng.normal(size=(num_movies, width)).astype(np.float32))[0]  # [I, k]
    for _ in range(_ROUNDS):
        directions = np.linalg.qr(weights.T @ (states.T @ (states @ (weights @ directions))))[0]
    scores = states @ (weights @ directions)  # [n, k]
    _, axes = np.linalg.eigh(scores.T @ scores)
    directions = directions @ axes[:, ::-1][:, :size].astype(np.float32)
    return weights @ directions, directions


def _some_states(
    sequences: Sequences,
    num_movies: int,
    decays: tuple[float, float, float],
    max_history: int,
    rng: np.random.Generator,
) -> tuple[scipy.sparse.csr_matrix, NDArray[np.bool_]]:
    """Returns memories of histories, one a row, [n, 2·I], and which of the rows are whole histories.

    As many of a short history as of a long one. Rows scaled to scores of length 1 bring nothing:
    docs/experiments.md, 2026-11-21.
    """
    sizes = np.diff(sequences.offsets)
    users = rng.permutation(np.flatnonzero(sizes > 0))[: _MAX_STATES // _CUTS_PER_USER]
    short, long = history_weights(*decays, max_history)
    rows, columns, values = [], [], []
    whole: list[bool] = []
    for user, movies in zip(users, sequences.newest(2 * max_history, users), strict=True):
        for behind in {0, *rng.integers(0, sizes[user], _CUTS_PER_USER - 1).tolist()}:
            before = movies[behind : behind + max_history]
            ages = np.flatnonzero(before >= 0)
            rows.append(np.full(2 * len(ages), len(whole)))
            columns.append(np.concatenate((before[ages], before[ages] + num_movies)))
            values.append(np.concatenate((short[ages], long[ages])))
            whole.append(behind == 0)
    entries = np.concatenate(values).astype(np.float32), (np.concatenate(rows), np.concatenate(columns))
    states = scipy.sparse.csr_matrix(entries, shape=(len(whole), 2 * num_movies))
    return states, np.array(whole)


def _watched_together(
    user_rows: NDArray[np.int32], movie_rows: NDArray[np.int32], num_movies: int, chosen: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Returns how many users watched both of two movies. [I', I']."""
    shape = (int(user_rows.max(initial=-1)) + 1, num_movies)
    watched = scipy.sparse.csr_matrix((np.ones(len(user_rows), np.float32), (user_rows, movie_rows)), shape=shape)
    kept = watched[:, chosen]
    gram: NDArray[np.float64] = (kept.T @ kept).toarray().astype(np.float64)
    return gram
