"""Finds, for each training row, the training rows that stand for its user's history. Knows order; knows no rating."""

import numpy as np
from numba import njit
from numpy.typing import NDArray

from trainer.dataset import Interactions


class HistoryWindows:
    """Finds, for each training row, the training rows that stand for its user's history."""

    def __init__(self, rows: Interactions, has_times: bool, length: int) -> None:
        """Sorts the rows once; L = `length`."""
        self._length = length
        self._ordered = has_times
        num_rows = len(rows)
        self._order = np.lexsort((rows.movie_rows, rows.event_times_ms, rows.user_rows))  # [n]
        self._place = np.empty(num_rows, np.int64)  # of each row in the order. [n]
        self._place[self._order] = np.arange(num_rows)
        users, times = rows.user_rows[self._order], rows.event_times_ms[self._order]
        new_user = np.concatenate(([True], users[1:] != users[:-1]))  # [n]
        new_moment = new_user | np.concatenate(([True], times[1:] != times[:-1]))  # [n]
        self._user_start = _last_true(new_user)  # [n]
        self._moment_start = _last_true(new_moment)  # [n]
        starts = np.flatnonzero(new_user)
        sizes = np.diff(np.append(starts, num_rows))
        self._user_size = np.repeat(sizes, sizes)  # [n]

    def draw(self, rng: np.random.Generator) -> None:
        """Without times, puts each user's rows into a new random order; with times, does nothing."""
        if not self._ordered:
            # A fraction on top of where its user starts puts a row anywhere among his and nowhere else.
            self._order = self._order[np.argsort(self._user_start + rng.random(len(self._order)))]
            self._place[self._order] = np.arange(len(self._order))

    def of(self, positions: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Returns positions of the rows in each history and the share of each in the mean, 0 for padding. [B, L]."""
        places = self._place[positions]  # [B]
        found = np.empty((len(positions), self._length), np.int64)
        shares = np.empty((len(positions), self._length), np.float32)
        starts = self._user_start[places]
        if self._ordered:
            _fill_before(self._moment_start[places], starts, self._order, found, shares)
        else:
            _fill_around(places, starts, self._user_size[places], self._order, found, shares)
        return found, shares


def _last_true(flags: NDArray[np.bool_]) -> NDArray[np.int64]:
    return np.maximum.accumulate(np.where(flags, np.arange(len(flags)), 0))


@njit(cache=True, nogil=True)
def _fill_before(moments, starts, order, found, shares):  # type: ignore[no-untyped-def]  # pragma: no cover
    length = found.shape[1]
    for row in range(len(starts)):
        size = min(length, moments[row] - starts[row])
        share = np.float32(1) / np.float32(max(size, 1))
        for column in range(length):
            inside = column < size
            found[row, column] = order[moments[row] - 1 - column if inside else 0]
            shares[row, column] = share if inside else np.float32(0)


@njit(cache=True, nogil=True)
def _fill_around(places, starts, sizes, order, found, shares):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Takes what follows in a random order, round and round: a random sample of the user's rows but this one."""
    length = found.shape[1]
    for row in range(len(starts)):
        size = min(length, sizes[row] - 1)
        share = np.float32(1) / np.float32(max(size, 1))
        place, end = places[row], starts[row] + sizes[row]
        for column in range(length):
            place = place + 1 if place + 1 < end else starts[row]
            inside = column < size
            found[row, column] = order[place if inside else 0]
            shares[row, column] = share if inside else np.float32(0)
