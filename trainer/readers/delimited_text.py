"""Parses delimited text into columns and knows on which line each row stood. Knows no user, movie or rating.

A stray quote can swallow the rows up to the next one, so a file is parsed with one-line fields, then, if rows were
swallowed, with fields that may span lines, then with quotes as plain characters; the parse that loses the fewest
lines counts.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as arrow_csv
from numpy.typing import NDArray

from trainer.errors import DataError
from trainer.readers.layouts import Layout
from trainer.readers.source import damage_named
from trainer.readers.utf8_stream import Utf8Stream


@dataclass(frozen=True, slots=True)
class InvalidRow:
    """A row with too few or too many columns; `number` counts the rows of the file from 1, the header included."""

    number: int
    text: str

    @property
    def height(self) -> int:
        """On how many lines it stands."""
        return self.text.count("\n") + 1


@dataclass(frozen=True, slots=True)
class _Dialect:
    quoting: bool
    spanning: bool


ONE_LINE, SPANNING, UNQUOTED = _Dialect(True, False), _Dialect(True, True), _Dialect(False, False)


@dataclass(frozen=True, slots=True)
class DelimitedText:
    """The parsed rows of one file.

    Attributes:
        table: The columns that were asked for.
        invalid: The rows that are not in it.
        num_lines: Lines of the file.
        first_line: Line of the first row.
        heights: Re-reads the file and tells on how many lines each row of `table` stands. int64 [num_rows]
    """

    table: pa.Table
    invalid: Sequence[InvalidRow]
    num_lines: int
    first_line: int
    heights: Callable[[], NDArray[np.int64]]

    @property
    def lost_lines(self) -> int:
        """Lines that are in no row."""
        return sum(row.height for row in self.invalid)

    def lines(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Returns the lines on which rows of the table begin. int64 [len(rows)]."""
        return self._all_lines()[self._places()[rows]]

    def invalid_lines(self, most: int) -> list[int]:
        """Returns the lines on which the first `most` invalid rows begin."""
        if not self.invalid:
            return []
        places = [row.number - self.first_line for row in self.invalid[:most]]
        return [int(line) for line in self._all_lines()[places]]

    def _places(self) -> NDArray[np.int64]:
        """Returns the position of each row of the table among all rows. int64 [num_rows]."""
        places = np.arange(self.table.num_rows + len(self.invalid))
        return np.delete(places, [row.number - self.first_line for row in self.invalid])

    def _all_lines(self) -> NDArray[np.int64]:
        heights = np.ones(self.table.num_rows + len(self.invalid), np.int64)
        if self.num_lines - self.first_line + 1 > len(heights):
            heights[self._places()] = self.heights()
            for row in self.invalid:
                heights[row.number - self.first_line] = row.height
        return self.first_line + np.cumsum(heights) - heights


def parse(open_stream: Callable[[], IO[bytes]], shown: str, layout: Layout, plain: Sequence[str] = ()) -> DelimitedText:
    """Parses the columns that have a role.

    Args:
        open_stream: Opens the bytes.
        shown: How messages name the file.
        layout: Columns and delimiter.
        plain: Roles whose values come as they stand, not dictionary-encoded.

    Raises:
        DataError: It is damaged or is no such text.
    """
    kinds: dict[str, pa.DataType] = {
        name: pa.string() if role in plain else pa.dictionary(pa.int32(), pa.string())
        for role, name in layout.columns.items()
    }
    single_line = [layout.columns[role] for role in ("user", "movie", "rating", "time") if role in layout.columns]
    best: DelimitedText | None = None
    failure: pa.ArrowInvalid | None = None
    for dialect in (ONE_LINE, SPANNING, UNQUOTED) if layout.quoting else (UNQUOTED,):
        try:
            text = _parse_as(dialect, open_stream, shown, layout, kinds)
        except pa.ArrowInvalid as error:
            failure = error
            continue
        if best is None or text.lost_lines < best.lost_lines:
            best = text
        swallowed = any(row.height > 1 for row in text.invalid)
        if not swallowed and not any(_holds_line_end(text.table[name]) for name in single_line):
            return text
        if best is text and not swallowed:
            best = None
    if best is None:
        raise DataError(f"{shown}: cannot be read as {layout.label} ({failure})") from failure
    return best


def _parse_as(
    dialect: _Dialect,
    open_stream: Callable[[], IO[bytes]],
    shown: str,
    layout: Layout,
    kinds: dict[str, pa.DataType],
) -> DelimitedText:
    invalid: list[InvalidRow] = []

    def note(row: Any) -> str:
        invalid.append(InvalidRow(row.number, row.text))
        return "skip"

    def heights() -> NDArray[np.int64]:
        everything: dict[str, pa.DataType] = dict.fromkeys(layout.header, pa.string())
        table = _parse_as(dialect, open_stream, shown, layout, everything).table
        return sum(
            (np.asarray(pc.count_substring(table[name], "\n"), np.int64) for name in layout.header),
            np.ones(table.num_rows, np.int64),
        )

    first_line = 2 if layout.has_header else 1
    stream = Utf8Stream(open_stream())
    with damage_named(shown):
        table = arrow_csv.read_csv(
            pa.PythonFile(stream, mode="r"),
            read_options=arrow_csv.ReadOptions(
                # Only the serial reader knows row numbers; it reads 25 million rows in seconds.
                use_threads=False,
                column_names=list(layout.header),
                skip_rows=first_line - 1,
            ),
            parse_options=arrow_csv.ParseOptions(
                delimiter="\t" if layout.delimiter == "::" else layout.delimiter,
                quote_char='"' if dialect.quoting else False,
                newlines_in_values=dialect.spanning,
                invalid_row_handler=note,
                ignore_empty_lines=False,
            ),
            convert_options=arrow_csv.ConvertOptions(
                column_types=kinds, include_columns=list(kinds), strings_can_be_null=False
            ),
        )
    table = table.unify_dictionaries()
    if layout.quoting and not dialect.quoting:
        for place, name in enumerate(table.column_names):
            table = table.set_column(place, name, _without_quotes(table[name]))
    return DelimitedText(table, invalid, stream.num_lines, first_line, heights)


def _without_quotes(column: pa.ChunkedArray) -> pa.ChunkedArray:
    if not pa.types.is_dictionary(column.type):
        return pc.utf8_trim(column, characters='"')
    return pa.chunked_array(
        [
            pa.DictionaryArray.from_arrays(chunk.indices, pc.utf8_trim(chunk.dictionary, characters='"'))
            for chunk in column.chunks
        ],
        column.type,
    )


def _holds_line_end(column: pa.ChunkedArray) -> bool:
    for chunk in column.chunks:
        distinct = chunk.dictionary if pa.types.is_dictionary(chunk.type) else chunk
        if pc.any(pc.match_substring(distinct, "\n")).as_py():
            return True
    return False
