"""Parses a delimited or Parquet file into columns of text and knows on which line each row stood.

Knows delimiters, quotes and encodings; knows no user, movie or rating. Ids and ratings come dictionary-encoded, so
that 25 million rows cost four bytes each and every check runs on the distinct values.
"""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as arrow_csv
import pyarrow.parquet as pq
from numpy.typing import NDArray

from trainer.errors import DataError
from trainer.readers.broken_rows import BrokenRows
from trainer.readers.layouts import FileKind, Layout, known_layout, layout_of_header, split_header
from trainer.readers.source import SourceFile, damage_named, in_memory

FIRST_LINE_BYTES = 64 * 1024
SHOWN_LETTERS = 60
"""How much of a broken line a message quotes."""


@dataclass(frozen=True, slots=True)
class RawTable:
    """The rows of one file that have the right number of columns.

    Attributes:
        layout: How the file was read.
        columns: Values by role: dictionary-encoded binary for text, or the file's own type for Parquet numbers.
        num_rows: Rows in `columns`.
        num_lines: Rows that the file has, the unreadable ones included, blank ones not.
        row_lines: Line of each row (1 is the first), made only when asked.
        broken: The unusable rows so far.
    """

    layout: Layout
    columns: Mapping[str, pa.Array]
    num_rows: int
    num_lines: int
    row_lines: "RowLines"
    broken: BrokenRows


class RowLines:
    """Tells the line on which a row stood; works only when asked, for broken rows are few."""

    def __init__(self, file: SourceFile, layout: Layout, first_line: int, skipped: Sequence[int], exact: bool) -> None:
        self._file = file
        self._layout = layout
        self._first_line = first_line
        self._skipped = np.asarray(sorted(skipped), np.int64)
        self._exact = exact

    def __getitem__(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Returns the lines of the given rows. int64 [len(rows)]."""
        if not self._exact:
            return self._counted_lines()[rows]
        # The k-th skipped line has skipped[k] - first_line - k rows before it.
        before = self._skipped - self._first_line - np.arange(len(self._skipped))
        return rows + self._first_line + np.searchsorted(before, rows, side="right")

    def _counted_lines(self) -> NDArray[np.int64]:
        """Walks the file row by row, since quoted fields hold line breaks."""
        lines: list[int] = []
        with self._file.open_stream() as stream, damage_named(self._file.shown):
            text = io.TextIOWrapper(stream, "utf-8-sig", errors="replace", newline="")
            reader = csv.reader(text, delimiter=self._layout.delimiter)
            start = 1
            for fields in reader:
                if len(fields) == len(self._layout.header) or not fields:
                    lines.append(start)
                start = reader.line_num + 1
        return np.asarray(lines[1 if self._layout.has_header else 0 :], np.int64)


def detect_layout(file: SourceFile, kind: FileKind, columns: Mapping[str, str]) -> Layout:
    """Finds out how a file is to be read, by its name or else by its first line.

    Raises:
        DataError: It is empty, not text in UTF-8, or lacks a needed column.
    """
    layout = known_layout(file.base_name)
    if layout is not None:
        if file.size_bytes == 0:
            raise DataError(f"{file.shown}: is empty; it needs {' '.join(layout.columns)} in columns")
        return layout
    if file.base_name.endswith(".parquet"):
        with damage_named(file.shown), file.open_stream() as stream:
            schema = _parquet(file, stream).schema_arrow
        return layout_of_header(file.shown, schema.names, "", kind, columns)
    with file.open_stream() as stream, damage_named(file.shown):
        start = stream.read(FIRST_LINE_BYTES)
    if not start.strip():
        raise DataError(f"{file.shown}: is empty; it needs a first line that names its columns")
    if start[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise DataError(f"{file.shown}: is text in UTF-16; save it as UTF-8")
    try:
        first = start.removeprefix(b"\xef\xbb\xbf").splitlines()[0].decode()
    except UnicodeDecodeError:
        raise DataError(f"{file.shown}, line 1: the column names are not UTF-8; save the file as UTF-8") from None
    header, delimiter = split_header(first)
    return layout_of_header(file.shown, header, delimiter, kind, columns)


def read_table(file: SourceFile, layout: Layout, plain: Sequence[str] = ()) -> RawTable:
    """Reads the columns that have a role.

    Args:
        file: The file.
        layout: How to read it.
        plain: Roles whose values are mostly different and come as plain binary, not dictionary-encoded.

    Raises:
        DataError: It is damaged or has no rows.
    """
    table = _read_parquet(file, layout) if not layout.delimiter else _read_delimited(file, layout, plain)
    if table.num_rows == 0 and not table.broken.count:
        raise DataError(f"{file.shown}: has no rows")
    return table


def _read_delimited(file: SourceFile, layout: Layout, plain: Sequence[str]) -> RawTable:
    invalid: list[tuple[int, str]] = []

    def note(row: Any) -> str:
        invalid.append((row.number, row.text))
        return "skip"

    kinds = {
        name: pa.binary() if role in plain else pa.dictionary(pa.int32(), pa.binary())
        for role, name in layout.columns.items()
    }
    stream = _LineCount(_prepared(file, layout))
    try:
        with damage_named(file.shown):
            table = arrow_csv.read_csv(
                pa.PythonFile(stream, mode="r"),
                read_options=arrow_csv.ReadOptions(
                    # Only the serial reader knows line numbers; it reads 25 million rows in seconds.
                    use_threads=False,
                    column_names=None if layout.has_header else list(layout.header),
                ),
                parse_options=arrow_csv.ParseOptions(
                    delimiter="\t" if layout.delimiter == "::" else layout.delimiter,
                    quote_char='"' if layout.quoting else False,
                    invalid_row_handler=note,
                    ignore_empty_lines=False,
                ),
                convert_options=arrow_csv.ConvertOptions(
                    column_types=kinds, include_columns=list(kinds), strings_can_be_null=False, check_utf8=False
                ),
            )
    except pa.ArrowInvalid as error:
        raise DataError(f"{file.shown}: cannot be read as {layout.label} ({error})") from error
    table = table.unify_dictionaries()
    broken = BrokenRows(file.shown)
    broken.add(
        f"not {len(layout.header)} columns: skipped",
        [line for line, _ in invalid],
        [_quote(text) for _, text in invalid],
        len(invalid),
    )
    first_line = 2 if layout.has_header else 1
    total = table.num_rows + len(invalid) + first_line - 1
    # Fewer rows than line ends means that quoted fields hold line breaks.
    exact = not layout.quoting or stream.num_lines <= total
    return RawTable(
        layout,
        {role: _whole(table[name]) for role, name in layout.columns.items()},
        table.num_rows,
        table.num_rows + len(invalid),
        RowLines(file, layout, first_line, [line for line, _ in invalid], exact),
        broken,
    )


def _read_parquet(file: SourceFile, layout: Layout) -> RawTable:
    names = list(layout.columns.values())
    with damage_named(file.shown), file.open_stream() as stream:
        table = _parquet(file, stream).read(columns=names)
    columns = {}
    for role, name in layout.columns.items():
        columns[role] = _whole(table[name])
    broken = BrokenRows(file.shown, unit="row")
    return RawTable(layout, columns, table.num_rows, table.num_rows, RowLines(file, layout, 1, [], True), broken)


def _parquet(file: SourceFile, stream: IO[bytes]) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(stream if stream.seekable() and "b" in getattr(stream, "mode", "") else in_memory(file))
    except (pa.ArrowInvalid, OSError) as error:
        raise DataError(f"{file.shown}: not a readable Parquet file ({error})") from error


def _prepared(file: SourceFile, layout: Layout) -> IO[bytes]:
    """Opens the file, re-coded where its layout is older than UTF-8 or separates by two characters."""
    if layout.delimiter != "::" and layout.encodings == ("utf-8",):
        return file.open_stream()
    content = file.read_bytes()
    if layout.delimiter == "::":
        content = content.replace(b"\t", b" ").replace(b"::", b"\t")
    for encoding in layout.encodings[:-1]:
        try:
            content.decode(encoding)
        except UnicodeDecodeError:
            continue
        return io.BytesIO(content)
    last = layout.encodings[-1]
    return io.BytesIO(content if last == "utf-8" else content.decode(last).encode())


class _LineCount(io.RawIOBase):
    """Passes a stream on and counts its lines."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self._ends_open = False
        self._line_ends = 0

    @property
    def num_lines(self) -> int:
        return self._line_ends + self._ends_open

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        block = self._stream.read(size)
        if block:
            self._line_ends += block.count(b"\n")
            self._ends_open = not block.endswith(b"\n")
        return block

    def close(self) -> None:
        self._stream.close()
        super().close()


def _whole(column: pa.ChunkedArray) -> pa.Array:
    whole = column.combine_chunks()
    if isinstance(whole, pa.ChunkedArray):
        return pa.concat_arrays(whole.chunks) if whole.num_chunks else pa.array([], whole.type)
    return whole


def _quote(text: str) -> str:
    text = text.replace("\t", "\\t").replace("\n", "\\n")
    return repr(text) if len(text) <= SHOWN_LETTERS else repr(text[:SHOWN_LETTERS]) + "..."


def not_utf8(values: pa.Array) -> NDArray[np.bool_]:
    """Tells which binary values are not UTF-8; costs a Python loop only if there are any. bool [len(values)]."""
    try:
        values.cast(pa.string())
    except pa.ArrowInvalid:
        return np.asarray([not _is_utf8(value) for value in values.to_pylist()], np.bool_)
    return np.zeros(len(values), np.bool_)


def _is_utf8(value: bytes) -> bool:
    try:
        value.decode()
    except UnicodeDecodeError:
        return False
    return True


def text_values(values: pa.Array) -> pa.Array:
    """Turns binary or other values into trimmed strings; what is not UTF-8 gets replacement signs, null becomes ""."""
    if pa.types.is_binary(values.type) or pa.types.is_large_binary(values.type):
        if not_utf8(values).any():
            values = pa.array([value.decode(errors="replace") for value in values.to_pylist()], pa.string())
        else:
            values = values.cast(pa.string())
    elif pa.types.is_floating(values.type) and not pc.any(pc.not_equal(pc.floor(values), values)).as_py():
        # Tables written by pandas hold whole-numbered ids as floats once one of them was missing.
        values = values.cast(pa.int64()).cast(pa.string())
    else:
        values = values.cast(pa.string())
    return pc.fill_null(pc.utf8_trim_whitespace(values), "")
