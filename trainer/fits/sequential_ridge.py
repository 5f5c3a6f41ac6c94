"""Fits next movies by ridge regression on decaying sums of a history, without writing any prefix out.

Knows sequences of movie rows and two decays; knows no softmax, content or serving form.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import scipy.linalg
from numpy.typing import NDArray

_PAIRS = 4e8
"""Pairs of events of one user that are added up, at most: about 20 s. Beyond, a sample of the users is read."""


@dataclass(frozen=True, slots=True)
class Sequences:
    """Every user's movies, newest first; a user has movies[offsets[u]:offsets[u + 1]].

    Attributes:
        offsets: int64 [U + 1]
        movies: -1 where a movie takes no part; it still makes what is older one event older. int64 [E]
    """

    offsets: NDArray[np.int64]
    movies: NDArray[np.int64]

    @classmethod
    def draw(
        cls,
        user_rows: NDArray[np.int32],
        movie_rows: NDArray[np.int32],
        event_times_ms: NDArray[np.int64],
        rng: np.random.Generator,
    ) -> "Sequences":
        """Orders events by time. Events of equal time have no order: one is drawn, so that none can be learned."""
        order = np.lexsort((rng.random(len(user_rows)), -event_times_ms, user_rows))
        num_users = int(user_rows.max(initial=-1)) + 1
        offsets = np.searchsorted(user_rows[order], np.arange(num_users + 1)).astype(np.int64)
        return cls(offsets, movie_rows[order].astype(np.int64))

    def among(self, chosen: NDArray[np.integer], num_movies: int) -> "Sequences":
        """Returns the same with movies named by their place in `chosen`, the others -1."""
        places = np.full(num_movies, -1, np.int64)
        places[chosen] = np.arange(len(chosen))
        return Sequences(self.offsets, places[self.movies])

    def newest(self, at_most: int, users: NDArray[np.integer]) -> Iterator[NDArray[np.int64]]:
        """Yields the newest movies of each of some users."""
        for user in users:
            first = self.offsets[user]
            yield self.movies[first : min(int(self.offsets[user + 1]), int(first) + at_most)]


def history_weights(short_decay: float, long_decay: float, flat_gain: float, length: int) -> NDArray[np.float64]:
    """Returns what an event of age 0, 1, ... weighs in the short and in the long memory: [2, length]."""
    ages = np.arange(length)
    return np.stack([np.exp(-ages / short_decay), np.exp(-ages / long_decay) + flat_gain])


def fit_sequential_ridge(
    sequences: Sequences,
    num_movies: int,
    *,
    short_decay: float,
    long_decay: float,
    flat_gain: float,
    ridge: float,
    max_history: int,
    rng: np.random.Generator,
) -> NDArray[np.float32]:
    """Solves B = (XᵀX + λI)⁻¹XᵀT over all cuts of all histories (the recipe's sequential ridge). float32 [2·I, I].

    A row of X holds what was watched before a cut, in two memories side by side: in column q·I + i stands w_q(a) if
    movie i was watched a events before the newest one. The row of T holds e^-h for the h-th movie after the cut.

    Counted from the newest event, the row of every cut is the same for all users: event number i weighs w_q(i - 1 - k)
    at the cut that leaves k + 1 events behind it. So what a user adds to XᵀX and XᵀT is the corner of one table for
    all, scattered at his movies; it costs the square of his history and no row is ever made.

    Args:
        sequences: Movies by row, -1 for those that take no part.
        num_movies: I.
        short_decay: w_1(a) = e^(-a / short_decay).
        long_decay: w_2(a) = e^(-a / long_decay) + flat_gain.
        flat_gain: See there.
        ridge: λ.
        max_history: Older events of a user are left out.
        rng: Draws the users, where all would take too long.
    """
    lengths = np.minimum(np.diff(sequences.offsets), max_history)
    longest = int(lengths.max(initial=1))
    weights = history_weights(short_decay, long_decay, flat_gain, longest)
    cut, event = np.indices((longest, longest))
    age = event - 1 - cut
    seen = [np.where(age >= 0, weight[np.maximum(age, 0)], 0).astype(np.float32) for weight in weights]
    wanted = np.where(age < 0, np.exp(np.minimum(event - cut, 0)), 0).astype(np.float32)  # [cuts, events]
    designs = [[one.T @ other for other in seen] for one in seen]  # [events, events] each
    moments = [one.T @ wanted for one in seen]
    gram = np.zeros((2 * num_movies, 2 * num_movies), np.float32)
    moment = np.zeros((2 * num_movies, num_movies), np.float32)
    for movies in sequences.newest(max_history, _some_users(lengths, rng)):
        events = np.flatnonzero(movies >= 0)
        places, corner = movies[events], np.ix_(events, events)
        for row in range(2):
            moment[np.ix_(places + row * num_movies, places)] += moments[row][corner]
            for column in range(2):
                gram[np.ix_(places + row * num_movies, places + column * num_movies)] += designs[row][column][corner]
    gram[np.diag_indices_from(gram)] += ridge
    factor = scipy.linalg.cho_factor(gram, lower=True, overwrite_a=True, check_finite=False)
    solved: NDArray[np.float32] = scipy.linalg.cho_solve(factor, moment, overwrite_b=True, check_finite=False)
    return solved


def _some_users(lengths: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.integer]:
    """Returns all users, or a sample whose squared histories add up to what can be afforded."""
    costs = lengths.astype(np.float64) ** 2
    if costs.sum() <= _PAIRS:
        return np.arange(len(lengths))
    drawn = rng.permutation(len(lengths))
    return drawn[: max(1, int(np.searchsorted(np.cumsum(costs[drawn]), _PAIRS)))]
