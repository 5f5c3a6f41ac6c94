"""Holds which movies each row of a batch may be answered. Knows masks and catalogue numbers; no genre and no score."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Permitted:
    """Which movies each row of a batch may be answered: masks that rows share, and exclusions of their own.

    Attributes:
        masks: bool [F, M]
        mask_of_row: int64 [B]
        excluded_rows: Row of each exclusion, ascending. int64 [X]
        excluded_numbers: Catalogue number of each exclusion. int64 [X]
    """

    masks: NDArray[np.bool_]
    mask_of_row: NDArray[np.int64]
    excluded_rows: NDArray[np.int64]
    excluded_numbers: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.mask_of_row)

    def of_row(self, row: int) -> NDArray[np.bool_]:
        """Returns True for the movies that the row may be answered. bool [M]."""
        mask: NDArray[np.bool_] = self.masks[self.mask_of_row[row]].copy()
        start, stop = np.searchsorted(self.excluded_rows, (row, row + 1))
        mask[self.excluded_numbers[start:stop]] = False
        return mask

    def excluded_of_row(self, row: int) -> NDArray[np.int64]:
        """Returns the catalogue numbers that the row excludes beside its mask. [x]."""
        start, stop = np.searchsorted(self.excluded_rows, (row, row + 1))
        return self.excluded_numbers[start:stop]

    def take(self, rows: Sequence[int]) -> "Permitted":
        """Returns the same for some of the rows, in the order of `rows`."""
        excluded = [self.excluded_of_row(row) for row in rows]
        return Permitted(
            self.masks,
            self.mask_of_row[np.asarray(rows, np.int64)],
            np.repeat(np.arange(len(rows), dtype=np.int64), [len(numbers) for numbers in excluded]),
            np.concatenate([np.zeros(0, np.int64), *excluded]),
        )
