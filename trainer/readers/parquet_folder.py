"""Reads interactions that are larger than memory: a folder of Parquet files, sorted by user. Knows batches and ids.

    DIR/interactions/*.parquet   user, movie, rating (may be missing), time (may be missing); read in the order of names
    DIR/movies.*, DIR/users.*    as beside any ratings file

One pass numbers users and movies and writes columns to disk (`trainer.readers.mapped_columns`), which all that follows
maps into memory. It is kept in the cache until the files change. Such files come from a program: a row that is wrong
ends the reading, none is set aside.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from trainer.data_cache import cache_folder
from trainer.dataset import Interactions
from trainer.errors import DataError
from trainer.readers.event_times import parse_times
from trainer.readers.id_column import REFUSED_ID, encode_column, refused_ids, shown_id
from trainer.readers.layouts import Layout, layout_of_header
from trainer.readers.mapped_columns import ColumnWriter, blocks_of_users, open_columns
from trainer.readers.parquet_file import open_parquet, read_parquet_batches
from trainer.readers.rating_scale import detect_scale, on_scale
from trainer.readers.read_options import ReadOptions
from two_tower.serving import RatingScale

FOLDER = "interactions"
_ROWS_A_BATCH = 1 << 18


class MappedRatings:
    """What the pass gives.

    Attributes:
        rows: Sorted by user and time, on disk; rows of users and movies are those of `user_ids` and `movie_ids`.
        user_ids: In the order of the files.
        movie_ids: The listed ones, then those that only the interactions know.
        scale: None without ratings.
        scale_origin: Where it comes from, for a person.
        time_form: None without times.
        layout: Which column is what.
    """

    def __init__(
        self,
        rows: Interactions,
        user_ids: list[str],
        movie_ids: list[str],
        scale: RatingScale | None,
        scale_origin: str,
        time_form: str | None,
        layout: Layout,
    ) -> None:
        self.rows = rows
        self.user_ids = user_ids
        self.movie_ids = movie_ids
        self.scale = scale
        self.scale_origin = scale_origin
        self.time_form = time_form
        self.layout = layout


def is_parquet_folder(path: Path) -> bool:
    """Tells whether a path is a folder of that form."""
    return path.is_dir() and any((path / FOLDER).glob("*.parquet"))


def read_parquet_folder(
    path: Path, options: ReadOptions, listed_movies: list[str], listed_users: list[str]
) -> MappedRatings:
    """Goes through the interactions, or finds in the cache what came of them.

    Args:
        path: The folder.
        options: Column names and the scale, as stated.
        listed_movies: Ids of the movies file, in its order.
        listed_users: Ids of the users file, in its order.

    Raises:
        DataError: A file is damaged, the rows are not sorted by user, or one of them is wrong.
    """
    files = sorted((path / FOLDER).glob("*.parquet"))
    layout = layout_of_header(str(files[0]), _column_names(files[0]), "", "ratings", options.columns)
    folder = cache_folder() / "interactions" / _fingerprint(files, layout, listed_movies, listed_users)
    about = folder / "about.json"
    if not about.exists():
        _Pass(files, layout, listed_movies, listed_users).write(folder)
    told = json.loads(about.read_text())
    rows = open_columns(folder)
    values = {float(stars): int(count) for stars, count in told["stars"].items()}
    scale, origin = _scale(path, values, options.scale)
    return MappedRatings(rows, told["users"], told["movies"], scale, origin, told["time_form"], layout)


class _Pass:
    """One pass over the files."""

    def __init__(self, files: list[Path], layout: Layout, movies: list[str], users: list[str]) -> None:
        self._files = files
        self._layout = layout
        self._movies = {label: row for row, label in enumerate(movies)}
        self._users = {label: row for row, label in enumerate(users)}
        self._met: set[int] = set()
        self._last_user = -1
        self._stars: dict[float, int] = {}
        self._time_form: str | None = None

    def write(self, folder: Path) -> None:
        capacity = sum(open_parquet(str(file), file).metadata.num_rows for file in self._files)
        if not capacity:
            raise DataError(f"{self._files[0].parent}: has no rows")
        writer = ColumnWriter(folder, capacity)
        for file in self._files:
            first = 0
            names = list(self._layout.columns.values())
            absent = [name for name in names if name not in _column_names(file)]
            if absent:
                raise DataError(f"{file}: has no column {', '.join(absent)}, which {self._files[0].name} has")
            try:
                for batch in read_parquet_batches(str(file), file, names, _ROWS_A_BATCH):
                    writer.append(self._rows(file, first, batch))
                    first += len(batch)
            except pa.ArrowException as error:
                raise DataError(f"{file}: cannot be read ({error})") from error
        rows = writer.finish()
        _sort_users(folder, rows, str(self._files[0].parent))
        told = {
            "users": list(self._users),
            "movies": list(self._movies),
            "stars": {str(stars): count for stars, count in sorted(self._stars.items())},
            "time_form": self._time_form,
        }
        # Written last: a folder without it is not looked at.
        (folder / "about.json").write_text(json.dumps(told))

    def _rows(self, file: Path, first: int, batch: pa.RecordBatch) -> Interactions:
        columns = {role: batch.column(name) for role, name in self._layout.columns.items()}
        users = self._ids(file, first, columns, "user", self._users)
        movies = self._ids(file, first, columns, "movie", self._movies)
        self._require_sorted(file, first, users)
        ratings = np.full(len(batch), np.nan, np.float32)
        if "rating" in columns:
            try:
                ratings = columns["rating"].cast(pa.float32()).to_numpy(zero_copy_only=False)
            except pa.ArrowInvalid as error:
                raise DataError(
                    f"{file}: column {self._layout.columns['rating']} does not hold numbers ({error})"
                ) from error
            for stars, count in zip(*np.unique(ratings[~np.isnan(ratings)], return_counts=True), strict=True):
                self._stars[float(stars)] = self._stars.get(float(stars), 0) + int(count)
        times = np.zeros(len(batch), np.int64)
        if "time" in columns:
            parsed = parse_times(columns["time"])
            _refuse(file, first, parsed.broken, f"a time that is not one of {parsed.form}")
            if self._time_form not in (None, parsed.form):
                raise DataError(f"{file}: times are {parsed.form}, and {self._time_form} further up; write all one way")
            self._time_form, times = parsed.form, parsed.milliseconds
        return Interactions(users, movies, ratings, times)

    def _ids(
        self, file: Path, first: int, columns: Mapping[str, pa.Array], role: str, known: dict[str, int]
    ) -> NDArray[np.int32]:
        column = encode_column(columns[role])
        for label in column.labels:
            if label:
                known.setdefault(label, len(known))
        rows = np.asarray([known.get(label, -1) for label in column.labels], np.int32)[column.codes]
        _refuse(file, first, rows < 0, f"no {role} id")
        refused = refused_ids(column)
        if refused.any():
            label = column.labels[column.codes[int(np.flatnonzero(refused)[0])]]
            _refuse(file, first, refused, f"{role} id {REFUSED_ID}: {shown_id(label)}")
        return rows

    def _require_sorted(self, file: Path, first: int, users: NDArray[np.int32]) -> None:
        begins = np.concatenate(([users[:1] != self._last_user], [users[1:] != users[:-1]]), axis=None)
        for place in np.flatnonzero(begins):
            user = int(users[place])
            if user in self._met:
                raise DataError(
                    f"{file}, row {first + int(place) + 1:,}: a user who stood further up comes again; sort the rows "
                    "of all files by user"
                )
            self._met.add(user)
        self._last_user = int(users[-1]) if len(users) else self._last_user


def _sort_users(folder: Path, rows: Interactions, shown: str) -> None:
    """Puts each user's rows in the order of time, in place, and refuses a movie that comes twice."""
    columns = {
        name: np.load(folder / f"{name}.npy", mmap_mode="r+")
        for name in ("user_rows", "movie_rows", "ratings", "event_times_ms")
    }
    for some in blocks_of_users(rows):
        part = {name: np.array(column[some]) for name, column in columns.items()}
        order = np.lexsort((part["movie_rows"], part["user_rows"]))
        users, movies = part["user_rows"][order], part["movie_rows"][order]
        twice = np.flatnonzero((users[1:] == users[:-1]) & (movies[1:] == movies[:-1]))
        if len(twice):
            raise DataError(
                f"{shown}: {len(twice):,} or more rows are of a user and a movie that have a row already; "
                "write one row for each, the newest"
            )
        order = np.lexsort((part["event_times_ms"], part["user_rows"]))
        if not np.array_equal(order, np.arange(len(order))):
            for name, column in columns.items():
                column[some] = part[name][order]
    for column in columns.values():
        column.flush()


def _scale(path: Path, stars: Mapping[float, int], stated: RatingScale | None) -> tuple[RatingScale | None, str]:
    values, counts = np.array(list(stars), np.float64), np.array(list(stars.values()), np.int64)
    if stated is None and len(values) < 2:
        return None, "no rating column or one rating: retrieval only"
    scale = stated or detect_scale(values, counts)
    if scale is not None and not on_scale(values, scale).all():
        off = values[~on_scale(values, scale)][0]
        raise DataError(f"{path}: a rating of {off:g} is off the scale {scale.low:g} to {scale.high:g}; state --scale")
    return scale, "stated" if stated else "detected"


def _refuse(file: Path, first: int, wrong: NDArray[np.bool_], what: str) -> None:
    if wrong.any():
        row = first + int(np.flatnonzero(wrong)[0]) + 1
        raise DataError(f"{file}, row {row:,}: {what}; {int(wrong.sum()):,} such rows near it")


def _column_names(file: Path) -> list[str]:
    names: list[str] = open_parquet(str(file), file).schema_arrow.names
    return names


def _fingerprint(files: list[Path], layout: Layout, movies: list[str], users: list[str]) -> str:
    digest = hashlib.sha256(json.dumps([dict(layout.columns), movies, users]).encode())
    for file in files:
        stat = file.stat()
        digest.update(f"{file.resolve()}\0{stat.st_size}\0{stat.st_mtime_ns}\0".encode())
    return digest.hexdigest()[:32]
