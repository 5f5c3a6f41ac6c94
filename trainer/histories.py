"""Lays interactions out as the feature store keeps them. Knows the window and the total order; knows no model.

Newest first by (event time, catalogue number), and no more than the newest `window` of a user: what a model sees here
is to the byte what it will be given when it serves.
"""

import numpy as np
from numpy.typing import NDArray

from trainer.dataset import Interactions
from two_tower.user_columns import Histories

HISTORY_WINDOW = 200
"""Events per user that the feature store keeps unless it is told otherwise."""


class HistoryLayout:
    """The histories of all users of a data set, made from some of its interactions."""

    def __init__(self, rows: Interactions, num_users: int, window: int = HISTORY_WINDOW) -> None:
        """Sorts the rows once."""
        self._order = np.lexsort((-rows.movie_rows.astype(np.int64), -rows.event_times_ms, rows.user_rows))
        self._rows = rows
        self._window = window
        self._counts = np.bincount(rows.user_rows, minlength=num_users).astype(np.int64)  # [U]
        self._starts = np.concatenate(([0], np.cumsum(self._counts)))[:-1]  # [U]

    def stored(self, users: NDArray[np.integer]) -> Histories:
        """Returns what the store keeps of these users."""
        lengths = np.minimum(self._counts[users], self._window)
        entries = self._entries(users, lengths)
        return Histories(
            np.concatenate(([0], np.cumsum(lengths))).astype(np.int64),
            self._rows.movie_rows[entries],
            self._rows.ratings[entries],
            self._rows.event_times_ms[entries],
            self._counts[users] <= self._window,
        )

    def seen(self, users: NDArray[np.integer]) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
        """Returns all that these users ever watched: position in `users` and catalogue number of each entry."""
        lengths = self._counts[users]
        return np.repeat(np.arange(len(users)), lengths), self._rows.movie_rows[self._entries(users, lengths)]

    def _entries(self, users: NDArray[np.integer], lengths: NDArray[np.int64]) -> NDArray[np.int64]:
        ends = np.cumsum(lengths)
        within = np.arange(ends[-1] if len(ends) else 0) - np.repeat(ends - lengths, lengths)
        found: NDArray[np.int64] = self._order[np.repeat(self._starts[users], lengths) + within]
        return found
