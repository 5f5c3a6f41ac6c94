"""Reads a file that holds one row per user or per movie, and says which of its rows stay. Knows no meaning of them.

A row with too few or too many columns, not UTF-8, without id, with an id that the services refuse, or whose id stood
further up is skipped and counts as broken.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from trainer.readers.broken_rows import NOT_UTF8, SHOWN_PER_REASON, BrokenRows
from trainer.readers.id_column import REFUSED_ID, EncodedColumn, encode_column, refused_ids, shown_id
from trainer.readers.layouts import Layout
from trainer.readers.raw_table import RawTable, read_table
from trainer.readers.source import SourceFile

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class KeyedTable:
    """The usable rows of a users or movies file, in file order.

    Attributes:
        key: Role of the id column, "user" or "movie".
        ids: All different.
        rows: Their positions among the rows that were parsed. int64 [len(ids)]
        columns: By role, all parsed rows.
        layout: How the file was read.
        broken: What was set aside.
        lines_of: Tells the lines of given rows, as of `RawTable`.
    """

    key: str
    ids: list[str]
    rows: NDArray[np.int64]
    columns: Mapping[str, EncodedColumn]
    layout: Layout
    broken: BrokenRows
    lines_of: Callable[[NDArray[np.int64]], NDArray[np.int64]]

    def texts(self, role: str) -> list[str]:
        """Returns one column as text, "" where it or the whole column is missing."""
        if role not in self.columns:
            return [""] * len(self.ids)
        column = self.columns[role]
        return [column.labels[code] for code in column.codes[self.rows].tolist()]

    def mapped(self, role: str, meaning: Callable[[str], T]) -> list[T]:
        """Returns one column with each distinct text interpreted once."""
        if role not in self.columns:
            return [meaning("")] * len(self.ids)
        column = self.columns[role]
        meanings = [meaning(label) for label in column.labels]
        return [meanings[code] for code in column.codes[self.rows].tolist()]

    def storable(self, values: Iterable[T], kept: Callable[[T], T], rule: str) -> list[T]:
        """Returns values as the services can store them, and notes the rows in which that is less than was read.

        Args:
            values: One for each id.
            kept: Tells what can be kept of a value: itself where all of it.
            rule: What is too much, and what becomes of it.
        """
        read = list(values)
        told = [kept(value) for value in read]
        less = [place for place, (before, after) in enumerate(zip(read, told, strict=True)) if before is not after]
        if not less:
            return told
        shown = less[:SHOWN_PER_REASON]
        texts = [f"{self.key} {shown_id(self.ids[place])}" for place in shown]
        self.broken.add(rule, self.lines_of(self.rows[shown]).tolist(), texts, len(less), harmless=True)
        return told


def read_keyed_table(file: SourceFile, layout: Layout, key: str, max_share: float) -> KeyedTable:
    """Reads a users or movies file; `key` is the role of its id column.

    Raises:
        DataError: It is empty, damaged, or has too many broken rows.
    """
    table = read_table(file, layout)
    columns = {role: encode_column(values) for role, values in table.columns.items()}
    ids = columns[key]
    blank = _blank_rows(table, columns)
    good = ~blank

    def drop(bad: NDArray[np.bool_], rule: str) -> None:
        rows = np.flatnonzero(bad & good)
        if len(rows):
            good[rows] = False
            shown = rows[:SHOWN_PER_REASON]
            texts = [f"{key} {shown_id(ids.labels[ids.codes[row]])}" for row in shown]
            table.broken.add(rule, table.lines_of(shown).tolist(), texts, len(rows))

    for column in columns.values():
        if column.not_utf8 is not None:
            drop(column.not_utf8, NOT_UTF8)
    drop(_with_text(ids, ""), f"no {key} id: skipped")
    drop(refused_ids(ids), f"{key} id {REFUSED_ID}: skipped")
    candidates = np.flatnonzero(good)
    first = candidates[np.unique(ids.codes[candidates], return_index=True)[1]]
    repeated = good.copy()
    repeated[first] = False
    drop(repeated, f"{key} id stood further up: skipped")
    table.broken.refuse_if_too_many(table.num_lines - int(blank.sum()), max_share)
    rows = np.flatnonzero(good)
    names = [ids.labels[code] for code in ids.codes[rows].tolist()]
    return KeyedTable(key, names, rows, columns, layout, table.broken, table.lines_of)


def _blank_rows(table: RawTable, columns: Mapping[str, EncodedColumn]) -> NDArray[np.bool_]:
    blank = np.ones(table.num_rows, np.bool_)
    for column in columns.values():
        blank &= _with_text(column, "")
    return blank


def _with_text(column: EncodedColumn, text: str) -> NDArray[np.bool_]:
    return np.asarray([label == text for label in column.labels], np.bool_)[column.codes]
