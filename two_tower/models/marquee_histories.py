"""Lays out the events that count for each user of a batch. Knows histories and rows; knows no weight and no tensor.

A user's events count either all, or, where the stored history was trimmed and the checkpoint has read what is missing,
only those newer than the checkpoint's data.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from two_tower.user_columns import Histories

_LADDER = np.array([0, 4, 8, 12, 16, 24, 32, 48, 64, 96, 128, 160, 200, 256])
"""Lengths to which rated histories are padded; beyond the last, powers of two. A user's place depends on him alone."""

_MAX_ENTRIES = 1 << 15
"""Padded entries of one block: 16 MiB at 128 coordinates, so that a block stays near the processor."""


@dataclass(frozen=True, slots=True)
class RatedBlock:
    """Users whose rated histories are padded to one length L.

    Attributes:
        users: Their positions in the batch. int64 [b]
        entries: Positions of their rated events, anything where `inside` is False. int64 [b, L]
        inside: bool [b, L]
    """

    users: NDArray[np.int64]
    entries: NDArray[np.int64]
    inside: NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class CountedEvents:
    """The events that count, newest first, user by user.

    Attributes:
        offsets: User b has events offsets[b]:offsets[b + 1]. int64 [B + 1]
        movie_numbers: int64 [E]
        ratings: NaN where not rated. float32 [E]
        old: True where the checkpoint's data reaches further than the event. bool [E]
    """

    offsets: NDArray[np.int64]
    movie_numbers: NDArray[np.int64]
    ratings: NDArray[np.float32]
    old: NDArray[np.bool_]

    @classmethod
    def of(cls, histories: Histories, only_new: NDArray[np.bool_], data_until_ms: int) -> "CountedEvents":
        """Leaves out what the checkpoint has read already.

        Args:
            histories: All stored events.
            only_new: True for a user of whom only events newer than `data_until_ms` count. [B]
            data_until_ms: Newest event that the checkpoint was trained on. An event without a time counts as old.
        """
        old = histories.event_times_ms <= data_until_ms
        whole = cls(histories.offsets, histories.movie_numbers.astype(np.int64), histories.ratings, old)
        if not only_new.any():
            return whole
        return whole.keep(~(np.repeat(only_new, whole.lengths()) & old))

    def keep(self, kept: NDArray[np.bool_]) -> "CountedEvents":
        """Returns these events without those that `kept` [E] does not name."""
        if kept.all():
            return self
        before = np.concatenate(([0], np.cumsum(kept)))
        return CountedEvents(before[self.offsets], self.movie_numbers[kept], self.ratings[kept], self.old[kept])

    def lengths(self) -> NDArray[np.int64]:
        """Returns the number of events of each user. int64 [B]."""
        return np.diff(self.offsets)

    def count(self, chosen: NDArray[np.bool_]) -> NDArray[np.int64]:
        """Returns how many of the chosen [E] events each user has. int64 [B]."""
        before = np.concatenate(([0], np.cumsum(chosen)))
        counts: NDArray[np.int64] = before[self.offsets[1:]] - before[self.offsets[:-1]]
        return counts

    def ages(self) -> NDArray[np.int64]:
        """Returns how many events of the same user are newer than each event. int64 [E]."""
        return np.arange(len(self.movie_numbers)) - np.repeat(self.offsets[:-1], self.lengths())

    def rated_blocks(self) -> Iterator[RatedBlock]:
        """Yields the users who rated anything, padded to few different lengths."""
        rated = ~np.isnan(self.ratings)
        positions = np.flatnonzero(rated)
        before = np.concatenate(([0], np.cumsum(rated)))
        starts = before[self.offsets]  # [B + 1], positions among the rated events
        counts = np.diff(starts)  # [B]
        padded = _padded_length(counts)
        for length in sorted(set(padded.tolist()) - {0}):
            users = np.flatnonzero(padded == length)
            step = max(1, _MAX_ENTRIES // length)
            for first in range(0, len(users), step):
                block = users[first : first + step]
                columns = np.arange(length)
                inside = columns < counts[block, None]  # [b, L]
                index = np.where(inside, starts[block, None] + columns, 0)
                yield RatedBlock(block, positions[index], inside)


def _padded_length(counts: NDArray[np.int64]) -> NDArray[np.int64]:
    lengths = _LADDER[np.minimum(np.searchsorted(_LADDER, counts), len(_LADDER) - 1)]
    long = counts > _LADDER[-1]
    if long.any():
        lengths[long] = 2 ** np.ceil(np.log2(counts[long])).astype(np.int64)
    return lengths
