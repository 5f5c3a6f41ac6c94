"""Opens a Parquet file and hands out sound rows of it. Knows no column's meaning."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import pyarrow as pa
import pyarrow.parquet as pq

from trainer.errors import DataError


def open_parquet(shown: str, source: Path | IO[bytes]) -> pq.ParquetFile:
    """Opens a file whose footer, with the names of its columns, can be read.

    Args:
        shown: How a person knows the file.
        source: Its path, or a stream that can seek.

    Raises:
        DataError: It is no Parquet file, or its footer is damaged.
    """
    try:
        file = pq.ParquetFile(source)
        # Names are decoded where they are asked for; damaged ones shall be told of here.
        file.schema_arrow.names  # noqa: B018
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise DataError(f"{shown}: not a readable Parquet file ({error})") from error
    return file


def read_parquet(shown: str, source: Path | IO[bytes], names: list[str]) -> pa.Table:
    """Reads columns whole.

    Raises:
        DataError: The file is damaged.
    """
    file = open_parquet(shown, source)
    with _damage_told(shown):
        table = file.read(columns=names)
        # Text that is not UTF-8 and numbers of words that are in no dictionary pass the reading.
        table.validate(full=True)
    _require_rows(shown, file, table.num_rows)
    return table


def read_parquet_batches(shown: str, source: Path | IO[bytes], names: list[str], rows: int) -> Iterator[pa.RecordBatch]:
    """Reads columns in batches of at most so many rows. Raises `DataError`, of damage that the reading meets alone."""
    file = open_parquet(shown, source)
    with _damage_told(shown):
        batches = file.iter_batches(rows, columns=names)
    num_rows = 0
    while True:
        with _damage_told(shown):
            batch = next(batches, None)
            if batch is None:
                break
            batch.validate(full=True)
        num_rows += len(batch)
        if num_rows > file.metadata.num_rows:
            break
        yield batch
    _require_rows(shown, file, num_rows)


def _require_rows(shown: str, file: pq.ParquetFile, num_rows: int) -> None:
    if num_rows != file.metadata.num_rows:
        raise DataError(f"{shown}: its footer and its columns differ in the number of rows; write the file again")


@contextmanager
def _damage_told(shown: str) -> Iterator[None]:
    try:
        yield
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{shown}: cannot be read ({error}); write the file again") from error
