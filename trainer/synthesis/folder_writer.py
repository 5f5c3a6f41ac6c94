"""Writes a synthetic data set as a folder in the layout of MovieLens latest, with users. Knows no taste.

CSV for people, Parquet for size; both stream, so 25 million ratings need the memory of one block. Files get their names
once all of them are whole.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.csv as arrow_csv
import pyarrow.parquet as pq

from trainer.dataset import Interactions
from trainer.errors import DataError
from trainer.synthesis.audience import Audience
from trainer.synthesis.catalogue import Catalogue
from trainer.synthesis.dataset_synthesis import BLOCK_USERS, SynthesisPlan, blocks_of, catalogue_of, genders_of, zips_of
from trainer.synthesis.known_tastes import OCCUPATIONS

FileFormat = Literal["csv", "parquet"]

RATINGS = pa.schema(
    [("userId", pa.int64()), ("movieId", pa.int64()), ("rating", pa.float32()), ("timestamp", pa.int64())]
)
USERS = pa.schema(
    [
        ("userId", pa.int64()),
        ("gender", pa.string()),
        ("age", pa.int64()),
        ("occupation", pa.string()),
        ("zip", pa.string()),
    ]
)
MOVIES = pa.schema([("movieId", pa.int64()), ("title", pa.string()), ("genres", pa.string())])


def write_synthetic(
    plan: SynthesisPlan,
    folder: Path,
    file_format: FileFormat = "csv",
    on_progress: Callable[[int], None] = lambda num_ratings: None,
) -> list[Path]:
    """Writes ratings, users and movies into a folder, which it makes; files of the same names are replaced.

    Args:
        plan: What to make.
        folder: Where.
        file_format: "csv" or "parquet".
        on_progress: Told after each block how many ratings it had.

    Returns:
        The files.

    Raises:
        DataError: The plan's figures do not fit together, or the files cannot be written; then nothing has changed.
    """
    plan.check()
    files = [folder / f"{name}.{file_format}" for name in ("ratings", "users", "movies")]
    with _written_aside(folder, files) as (ratings_file, users_file, movies_file):
        catalogue = catalogue_of(plan)
        with _writer(movies_file, MOVIES, file_format) as movies:
            movies.write_table(_movies_table(catalogue))
        with _writer(users_file, USERS, file_format) as users, _writer(ratings_file, RATINGS, file_format) as ratings:
            for block, (audience, rows) in enumerate(blocks_of(plan, catalogue)):
                users.write_table(_users_table(audience, block * BLOCK_USERS))
                ratings.write_table(_ratings_table(rows))
                on_progress(len(rows))
    return files


@contextmanager
def _written_aside(folder: Path, files: list[Path]) -> Iterator[list[Path]]:
    """Yields where to write the files of a folder; they get their names at the end, or are removed if that fails."""
    is_new = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    if blocked := [file.name for file in files if file.is_dir()]:
        raise DataError(f"{folder}: {blocked[0]} is a folder there; a file of that name is to be written")
    aside = [file.with_name(f".{file.name}.partial-{os.getpid()}") for file in files]
    try:
        yield aside
        for written, file in zip(aside, files, strict=True):
            written.replace(file)
    except BaseException as error:
        for written in aside:
            written.unlink(missing_ok=True)
        if is_new and not any(folder.iterdir()):
            folder.rmdir()
        if isinstance(error, OSError):
            reason = os.strerror(error.errno) if error.errno else str(error)
            raise DataError(f"{folder}: the data set cannot be written there ({reason}); nothing was kept") from error
        raise


def _writer(path: Path, schema: pa.Schema, file_format: FileFormat) -> "pq.ParquetWriter | arrow_csv.CSVWriter":
    if file_format == "parquet":
        return pq.ParquetWriter(path, schema)
    return arrow_csv.CSVWriter(path, schema, write_options=arrow_csv.WriteOptions(quoting_style="needed"))


def _ratings_table(rows: Interactions) -> pa.Table:
    seconds = rows.event_times_ms // 1000
    columns = [rows.user_rows.astype(np.int64) + 1, rows.movie_rows.astype(np.int64) + 1, rows.ratings, seconds]
    return pa.table(columns, schema=RATINGS)


def _users_table(audience: Audience, first_row: int) -> pa.Table:
    ids = np.arange(first_row + 1, first_row + 1 + len(audience.ages))
    occupations = [OCCUPATIONS[code] for code in audience.occupations.tolist()]
    columns = [ids, genders_of(audience), audience.ages.astype(np.int64), occupations, zips_of(audience)]
    return pa.table(columns, schema=USERS)


def _movies_table(catalogue: Catalogue) -> pa.Table:
    movies = catalogue.movies
    titles = [f"{title} ({year:.0f})" for title, year in zip(movies.titles, movies.years.tolist(), strict=True)]
    genres = ["|".join(those) for those in movies.genres]
    return pa.table([np.arange(1, len(movies) + 1), titles, genres], schema=MOVIES)
