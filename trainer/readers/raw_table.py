"""Parses a delimited or Parquet file into columns of text and knows on which line each row stood.

Knows delimiters, quotes and encodings; knows no user, movie or rating. Ids and ratings come dictionary-encoded, so
that 25 million rows cost four bytes each and every check runs on the distinct values.
"""

import codecs
import io
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import IO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from trainer.errors import DataError
from trainer.readers.broken_rows import SHOWN_PER_REASON, BrokenRows
from trainer.readers.delimited_text import parse
from trainer.readers.layouts import FileKind, Layout, known_layout, layout_of_header, split_header
from trainer.readers.parquet_file import open_parquet, read_parquet
from trainer.readers.source import SourceFile, damage_named, in_memory
from trainer.readers.utf8_stream import MARKED, mark_undecodable, quoted

FIRST_LINE_BYTES = 64 * 1024
SHOWN_LETTERS = 60
"""How much of a broken line a message quotes."""


@dataclass(frozen=True, slots=True)
class RawTable:
    """The rows of one file that have the right number of columns.

    Attributes:
        layout: How the file was read.
        columns: Values by role: text, dictionary-encoded unless asked otherwise; Parquet keeps its own types.
        num_rows: Rows in `columns`.
        num_lines: Rows that the file has, the unreadable ones included, blank ones not.
        lines_of: Tells the lines (the first is 1) of given rows; works only when asked, for broken rows are few.
        broken: The unusable rows so far.
    """

    layout: Layout
    columns: Mapping[str, pa.Array]
    num_rows: int
    num_lines: int
    lines_of: Callable[[NDArray[np.int64]], NDArray[np.int64]]
    broken: BrokenRows


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
            names = open_parquet(file.shown, _seekable(file, stream)).schema_arrow.names
        return layout_of_header(file.shown, names, "", kind, columns)
    with file.open_stream() as stream, damage_named(file.shown):
        first_line = stream.readline(FIRST_LINE_BYTES)
    if first_line.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise DataError(f"{file.shown}: is text in UTF-16; save it as UTF-8")
    column_names = next(iter(first_line.removeprefix(codecs.BOM_UTF8).splitlines()), b"")
    if not column_names.strip():
        absent = "is empty" if file.size_bytes <= len(first_line) else "begins with an empty line"
        raise DataError(f"{file.shown}: {absent}; it needs a first line that names its columns")
    try:
        header, delimiter = split_header(column_names.decode())
    except UnicodeDecodeError:
        raise DataError(f"{file.shown}, line 1: the column names are not UTF-8; save the file as UTF-8") from None
    return layout_of_header(file.shown, header, delimiter, kind, columns)


def read_table(file: SourceFile, layout: Layout, plain: Sequence[str] = ()) -> RawTable:
    """Reads the columns that have a role.

    Args:
        file: The file.
        layout: How to read it.
        plain: Roles whose values are mostly different and come as they stand, not dictionary-encoded.

    Raises:
        DataError: It is damaged or has no rows.
    """
    table = _read_parquet(file, layout) if not layout.delimiter else _read_delimited(file, layout, plain)
    if table.num_rows == 0 and not table.broken.count:
        raise DataError(f"{file.shown}: has no rows")
    return table


def _read_delimited(file: SourceFile, layout: Layout, plain: Sequence[str]) -> RawTable:
    text = parse(lambda: _prepared(file, layout), file.shown, layout, plain)
    broken = BrokenRows(file.shown)
    quotes = [quoted(row.text[:SHOWN_LETTERS]) for row in text.invalid[:SHOWN_PER_REASON]]
    lines = text.invalid_lines(SHOWN_PER_REASON)
    broken.add(f"not {len(layout.header)} columns: skipped", lines, quotes, text.lost_lines)
    columns = {role: _whole(text.table[name]) for role, name in layout.columns.items()}
    num_rows = text.table.num_rows
    return RawTable(layout, columns, num_rows, num_rows + text.lost_lines, text.lines, broken)


def _read_parquet(file: SourceFile, layout: Layout) -> RawTable:
    names = list(layout.columns.values())
    with damage_named(file.shown), file.open_stream() as stream:
        table = read_parquet(file.shown, _seekable(file, stream), names)
    columns = {role: _plain_type(file.shown, name, _whole(table[name])) for role, name in layout.columns.items()}
    broken = BrokenRows(file.shown, unit="row")
    return RawTable(layout, columns, table.num_rows, table.num_rows, lambda rows: rows + 1, broken)


def _seekable(file: SourceFile, stream: IO[bytes]) -> IO[bytes]:
    return stream if stream.seekable() and "b" in getattr(stream, "mode", "") else in_memory(file)


def _plain_type(shown: str, name: str, values: pa.Array) -> pa.Array:
    """Turns the many types of Parquet into text, numbers or times, with null for what is missing."""
    kind, types = values.type, pa.types
    if types.is_dictionary(kind):
        return _plain_type(shown, name, values.dictionary_decode())
    if types.is_large_string(kind) or types.is_string_view(kind) or types.is_null(kind):
        return values.cast(pa.string())
    if types.is_boolean(kind):
        return values.cast(pa.int8())
    if types.is_decimal(kind) or types.is_float16(kind):
        values = values.cast(pa.float64())
    if types.is_floating(values.type):
        return pc.if_else(pc.is_nan(values), None, values)
    texts = types.is_string(kind) or types.is_binary(kind) or types.is_large_binary(kind)
    if texts or types.is_integer(kind) or types.is_timestamp(kind) or types.is_date(kind):
        return values
    raise DataError(f"{shown}: column {name} is of type {kind}; it must hold text, numbers or times")


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


def _whole(column: pa.ChunkedArray) -> pa.Array:
    whole = column.combine_chunks()
    if isinstance(whole, pa.ChunkedArray):
        return pa.concat_arrays(whole.chunks) if whole.num_chunks else pa.array([], whole.type)
    return whole


def not_utf8(texts: pa.Array) -> NDArray[np.bool_]:
    """Tells which texts hold bytes that are not UTF-8. bool [len(texts)]."""
    marked = pc.match_substring_regex(texts, MARKED).fill_null(False)
    return np.asarray(marked.to_numpy(zero_copy_only=False), np.bool_)


def text_values(values: pa.Array) -> pa.Array:
    """Turns values of any type into trimmed strings; null becomes ""."""
    if pa.types.is_binary(values.type) or pa.types.is_large_binary(values.type):
        decoded = (value.decode(errors="surrogateescape") if value is not None else "" for value in values.to_pylist())
        values = pa.array([mark_undecodable(text) for text in decoded], pa.string())
    else:
        if pa.types.is_floating(values.type):
            # Tables written by pandas hold whole-numbered ids as floats once one of them was missing.
            with suppress(pa.ArrowInvalid):
                values = values.cast(pa.int64())
        values = values.cast(pa.string())
    return pc.fill_null(pc.utf8_trim_whitespace(values), "")
