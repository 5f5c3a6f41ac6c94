"""Holds what users did, user after user, and cuts it into what is given and what is to be guessed. Knows no weight.

A cut at place p gives what was strictly earlier than event p and asks for what follows. Only the events of the users
asked for are read, so the columns may lie on disk.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trainer.dataset import Interactions

_ROWS_AT_ONCE = 1 << 20


@dataclass(frozen=True, slots=True)
class CutOptions:
    """How histories are cut.

    Attributes:
        window: Events before a place that are given, at most: those that the tower looks at.
        cuts: Places of each user's history in an epoch, at most.
        num_next: Events from the place on that are to be guessed.
        num_rated: Events from the place on, drawn, whose ratings are to be guessed.
        hide_ties: Whether events of the same moment as event p are hidden from it, else those before it in a drawn
            order are given.
    """

    window: int
    cuts: int
    num_next: int
    num_rated: int
    hide_ties: bool


@dataclass(frozen=True, slots=True)
class Cuts:
    """B users, each cut at c places; L events each at most, oldest first.

    Attributes:
        users: User rows. int64 [B]
        movies: Movie rows, 0 where padded. int64 [B, L]
        ratings: Stars, NaN where there is none or padded. float32 [B, L]
        lengths: Events of each user. int64 [B]
        places: Events before each cut. int64 [B, c]
        given: Events, the oldest ones, that each cut gives; never above `places`. int64 [B, c]
        used: False for a cut that a short history had no place for. bool [B, c]
        rated: Events whose ratings are to be guessed. int64 [B, c, T]
    """

    users: NDArray[np.int64]
    movies: NDArray[np.int64]
    ratings: NDArray[np.float32]
    lengths: NDArray[np.int64]
    places: NDArray[np.int64]
    given: NDArray[np.int64]
    used: NDArray[np.bool_]
    rated: NDArray[np.int64]


class Sequences:
    """The events of U users, those of one user side by side, in arrays or in files mapped into memory."""

    def __init__(self, starts: NDArray[np.int64], rows: Interactions, *, ordered: bool) -> None:
        """Takes rows sorted by user, and by time where they are ordered; user u's are starts[u]:starts[u + 1]."""
        self.starts = starts
        self.rows = rows
        self.ordered = ordered

    @classmethod
    def of(cls, rows: Interactions, num_users: int, *, ordered: bool) -> "Sequences":
        """Sorts rows, unless they are sorted already: then nothing is copied."""
        if not _is_sorted(rows):
            rows = rows.take(np.lexsort((rows.event_times_ms, rows.user_rows)))
        counts = np.zeros(num_users, np.int64)
        for first in range(0, len(rows), _ROWS_AT_ONCE):
            counts += np.bincount(rows.user_rows[first : first + _ROWS_AT_ONCE], minlength=num_users)
        return cls(np.concatenate(([0], np.cumsum(counts))).astype(np.int64), rows, ordered=ordered)

    @property
    def sizes(self) -> NDArray[np.int64]:
        """Events of each user. int64 [U]."""
        return np.diff(self.starts)

    def cut(self, users: NDArray[np.int64], options: CutOptions, rng: np.random.Generator) -> Cuts:
        """Cuts the histories of some users at places drawn anew.

        Of a long history two windows' worth is looked at: a stretch of it where there is an order, else a sample.
        """
        sizes = self.sizes[users]  # [B]
        room = 2 * options.window
        lengths = np.minimum(sizes, room)  # [B]
        longest = int(lengths.max(initial=1))
        columns = np.arange(longest)
        inside = columns < lengths[:, None]  # [B, L]
        # A stretch ends anywhere, but leaves a whole window before its first cut unless it begins at the beginning.
        skipped = np.where(sizes > room, rng.integers(0, np.maximum(sizes - room, 0) + 1), 0)  # [B]
        within = skipped[:, None] + columns if self.ordered else self._sample(sizes, lengths, longest, rng)
        entries = np.where(inside, self.starts[users][:, None] + within, self.starts[users][:, None])  # [B, L]
        times = np.where(inside, self.rows.event_times_ms[entries], np.iinfo(np.int64).max)
        order = np.lexsort((rng.random(inside.shape), times if self.ordered else ~inside), axis=-1)  # [B, L]
        entries, times = (np.take_along_axis(array, order, axis=1) for array in (entries, times))
        movies = np.where(inside, self.rows.movie_rows[entries], 0).astype(np.int64)
        ratings = np.where(inside, self.rows.ratings[entries], np.float32(np.nan))

        first = np.where(skipped > 0, options.window, 0)[:, None]  # [B, 1]
        draws = np.where(inside & (columns >= first), rng.random(inside.shape), 2.0)
        width = min(options.cuts, longest)
        # The smallest draws are a sample without replacement.
        places = np.argpartition(draws, width - 1, axis=1)[:, :width]  # [B, c]
        used = np.take_along_axis(draws, places, axis=1) < 1.0
        places = np.where(used, places, 0)
        given = places
        if self.ordered and options.hide_ties:
            new_moment = np.concatenate([np.ones((len(users), 1), np.bool_), times[:, 1:] != times[:, :-1]], axis=1)
            moment_start = np.maximum.accumulate(np.where(new_moment, columns, 0), axis=1)
            given = np.take_along_axis(moment_start, places, axis=1)
        ahead = rng.random((*places.shape, options.num_rated)) * (lengths[:, None] - places)[..., None]  # [B, c, T]
        rated = places[..., None] + ahead.astype(np.int64)
        return Cuts(users, movies, ratings, lengths, places, given, used, rated)

    def _sample(
        self, sizes: NDArray[np.int64], lengths: NDArray[np.int64], longest: int, rng: np.random.Generator
    ) -> NDArray[np.int64]:
        within = np.broadcast_to(np.arange(longest), (len(sizes), longest)).copy()
        for row in np.flatnonzero(sizes > lengths):
            within[row] = rng.choice(sizes[row], longest, replace=False, shuffle=False)
        return within


def _is_sorted(rows: Interactions) -> bool:
    for first in range(0, len(rows), _ROWS_AT_ONCE):
        users = rows.user_rows[first : first + _ROWS_AT_ONCE + 1]
        times = rows.event_times_ms[first : first + _ROWS_AT_ONCE + 1]
        later = (users[1:] > users[:-1]) | ((users[1:] == users[:-1]) & (times[1:] >= times[:-1]))
        if not later.all():
            return False
    return True
