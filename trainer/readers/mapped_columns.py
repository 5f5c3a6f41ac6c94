"""Keeps interactions on disk and maps them into memory, where they look like arrays. Knows columns; no id, no format.

A folder of .npy files, written aside and renamed when whole: whoever finds it finds all of it.
"""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trainer.dataset import Interactions
from trainer.errors import DataError

_TYPES = {"user_rows": np.int32, "movie_rows": np.int32, "ratings": np.float32, "event_times_ms": np.int64}

ROWS_AT_ONCE = 1 << 20
"""Rows that who goes through mapped columns should hold at once: 20 MB."""


class ColumnWriter:
    """Writes interactions piece by piece; at most `capacity` of them."""

    def __init__(self, folder: Path, capacity: int) -> None:
        """Makes files beside `folder`, whose name they get in `finish`."""
        self._folder = folder
        self._aside = folder.with_name(f"{folder.name}.{os.getpid()}.writing")
        self.count = 0
        try:
            self._aside.mkdir(parents=True, exist_ok=True)
            self._columns = {
                name: np.lib.format.open_memmap(self._aside / f"{name}.npy", "w+", dtype, (max(1, capacity),))
                for name, dtype in _TYPES.items()
            }
        except OSError as error:
            raise DataError(
                f"{folder.parent}: cannot hold the columns ({error.strerror}); MARQUEE_CACHE moves it"
            ) from error

    def append(self, rows: Interactions) -> None:
        """Writes further rows."""
        for name, column in self._columns.items():
            column[self.count : self.count + len(rows)] = getattr(rows, name)
        self.count += len(rows)

    def finish(self) -> Interactions:
        """Gives the folder its name and returns what is in it."""
        for column in self._columns.values():
            column.flush()
        self._columns.clear()
        (self._aside / "count").write_text(str(self.count))
        shutil.rmtree(self._folder, ignore_errors=True)
        try:
            self._aside.rename(self._folder)
        except OSError:
            # Another process of the same training was faster; what it wrote is the same.
            shutil.rmtree(self._aside, ignore_errors=True)
        return open_columns(self._folder)


def open_columns(folder: Path) -> Interactions:
    """Maps the columns of a folder.

    Raises:
        DataError: They cannot be read.
    """
    try:
        count = int((folder / "count").read_text())
        columns = {name: np.load(folder / f"{name}.npy", mmap_mode="r")[:count] for name in _TYPES}
    except (OSError, ValueError) as error:
        raise DataError(f"{folder}: cannot be read ({error}); remove it and try again") from error
    return Interactions(**columns)


def are_mapped(rows: Interactions) -> bool:
    """Tells whether rows lie on disk: then nobody should copy or sort all of them."""
    return isinstance(rows.user_rows, np.memmap)


def blocks_of_users(rows: Interactions, rows_at_once: int = ROWS_AT_ONCE) -> Iterator[slice]:
    """Yields slices of rows sorted by user, each of whole users and, unless one user has more, of so many rows."""
    first = 0
    while first < len(rows):
        last = min(first + rows_at_once, len(rows))
        if last < len(rows):
            users = rows.user_rows[first : last + 1]
            cut = int(np.searchsorted(users, users[-1]))
            last = first + cut if cut else _end_of_user(rows, last)
        yield slice(first, last)
        first = last


def in_memory(rows: Interactions, some: slice) -> Interactions:
    """Returns a copy of some rows."""
    return Interactions(**{name: np.array(getattr(rows, name)[some]) for name in _TYPES})


def rows_of_users(rows: Interactions, users: NDArray[np.integer], num_users: int) -> Interactions:
    """Returns the rows of some users, in their order, in memory; goes through all rows in pieces."""
    wanted = np.zeros(num_users, np.bool_)
    wanted[users] = True
    places = [
        first + np.flatnonzero(wanted[rows.user_rows[first : first + ROWS_AT_ONCE]])
        for first in range(0, len(rows), ROWS_AT_ONCE)
    ]
    return rows.take(np.concatenate(places) if places else np.zeros(0, np.int64))


def _end_of_user(rows: Interactions, place: int) -> int:
    user = rows.user_rows[place]
    while place < len(rows) and rows.user_rows[place] == user:
        place += 1
    return place
