"""Keeps snapshots in the registry: who watched what, which movies, up to where in the event log. Knows Parquet files.

    <registry>/snapshots/<name>/watched.parquet   one row for each user and movie, by user and (time, catalogue number)
                                users.parquet     user_id, gender, age, occupation, zip
                                movies.parquet    by catalogue number: movie_id, title, year, genres, bags, available
                                about.json        what it is, and a hash of each file

A folder is written aside, synced and renamed, so that it is whole or absent, also over a power loss.
"""

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from trainer.durable_files import hash_of, sync
from trainer.errors import TrainerError
from trainer.store_snapshots.events import Events, Watched
from two_tower import strict_json
from two_tower.movie_columns import MovieColumns
from two_tower.registry import SNAPSHOTS, Registry
from two_tower.serving import RatingScale
from two_tower.user_columns import Profiles

FORMAT = "marquee-snapshot"
FORMAT_VERSION = 1

_ABOUT = "about.json"
_FILES = ("watched.parquet", "users.parquet", "movies.parquet")


class SnapshotError(TrainerError):
    """A snapshot cannot be read or written; the message says which and what would be right."""


@dataclass(frozen=True, slots=True, kw_only=True)
class About:
    """What a snapshot says of itself.

    Attributes:
        name: Its folder's name.
        data_name: What the data set is called that it began with.
        taken_at_ms: When its taking began: who was deleted later may still be in it.
        store_epoch: The store that it goes on from.
        position: Up to where it has that store's event log.
        num_rows: Rows.
        num_users: Users.
        num_movies: Movies of the catalogue.
        num_events: Events read from the log for it and its predecessors.
        num_off_scale: Ratings of theirs that are off the scale; they count as watched, not as rated.
        num_deleted: Users forgotten on the way from its predecessor.
        forgotten_movies: Movies that nobody has watched any more since somebody was deleted.
        resynced: Whether events may be missing that no log had any more.
        scale: Rating scale; None while there are no ratings.
        has_times: Whether anything has a time.
        sha256: Hash of each file.
    """

    format: str = FORMAT
    format_version: int = FORMAT_VERSION
    name: str
    data_name: str
    taken_at_ms: int
    store_epoch: str
    position: str
    num_rows: int
    num_users: int
    num_movies: int
    num_events: int
    num_off_scale: int
    num_deleted: int
    forgotten_movies: tuple[str, ...]
    resynced: bool
    scale: RatingScale | None
    has_times: bool
    sha256: dict[str, str]


@dataclass(frozen=True, slots=True)
class Holdings:
    """What a snapshot holds.

    Attributes:
        user_ids: External ids; position = user row.
        profiles: By user row.
        zips: By user row.
        movies: By catalogue number.
        watched: Users and movies by these positions.
    """

    user_ids: list[str]
    profiles: Profiles
    zips: list[str | None]
    movies: MovieColumns
    watched: Watched


class SnapshotFolder:
    """The snapshots of one registry."""

    def __init__(self, registry: Registry) -> None:
        self._path = registry.path / SNAPSHOTS

    def names(self) -> list[str]:
        """Returns all snapshots, oldest first."""
        return sorted(path.parent.name for path in self._path.glob(f"[!.]*/{_ABOUT}"))

    def newest(self) -> str | None:
        """Returns the newest snapshot, None if there is none."""
        names = self.names()
        return names[-1] if names else None

    def path_of(self, name: str) -> Path:
        """Returns the folder of a snapshot."""
        return self._path / name

    def about(self, name: str) -> About:
        """Reads what a snapshot says of itself.

        Raises:
            SnapshotError: It is damaged or of another format.
        """
        return read_about(self._path / name)

    def write(self, about: About, holdings: Holdings) -> About:
        """Writes a snapshot; returns what it says of itself, the hashes filled in.

        Raises:
            SnapshotError: There is one of that name.
        """
        folder, aside = self._path / about.name, self._path / f".{about.name}.partial-{os.getpid()}"
        if folder.exists():
            raise SnapshotError(f"{folder} exists; a snapshot is never overwritten")
        self._remove_partial()
        aside.mkdir(parents=True)
        try:
            tables = (_watched_table(holdings), _users_table(holdings), _movies_table(holdings.movies))
            for name, table in zip(_FILES, tables, strict=True):
                pq.write_table(table, aside / name, compression="zstd")
            about = replace(about, sha256={name: hash_of(aside / name) for name in _FILES})
            (aside / _ABOUT).write_text(json.dumps(strict_json.encode(about), indent=1), encoding="utf-8")
            for name in (*_FILES, _ABOUT):
                sync(aside / name)
            sync(aside)
            aside.rename(folder)
            sync(self._path)
            sync(self._path.parent)
        except BaseException:
            shutil.rmtree(aside, ignore_errors=True)
            raise
        return about

    def remove(self, name: str) -> None:
        """Removes a snapshot; who looks sees all of it or nothing."""
        aside = self._path / f".{name}.partial-{os.getpid()}"
        (self._path / name).rename(aside)
        shutil.rmtree(aside)

    def _remove_partial(self) -> None:
        """Removes what a killed rebuild left: only one runs at a time, so nobody writes it."""
        for aside in self._path.glob(".*.partial-*"):
            shutil.rmtree(aside, ignore_errors=True)


def read_about(folder: Path) -> About:
    """Reads what a snapshot says of itself.

    Raises:
        SnapshotError: It is damaged or of another format.
    """
    try:
        fields = json.loads((folder / _ABOUT).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SnapshotError(f"{folder}: {_ABOUT} cannot be read ({error})") from error
    known = (fields.get("format"), fields.get("format_version")) if isinstance(fields, dict) else (None, None)
    if known != (FORMAT, FORMAT_VERSION):
        raise SnapshotError(f"{folder}: is of format {known}; this code reads {(FORMAT, FORMAT_VERSION)}")
    problems: list[str] = []
    about = strict_json.decode(About, fields, "about", problems)
    if problems or about.name != folder.name:
        raise SnapshotError(f"{folder}: {'; '.join(problems) or f'calls itself {about.name}'}")
    assert isinstance(about, About)
    return about


def is_snapshot(path: Path) -> bool:
    """Tells whether a folder is a snapshot."""
    return path.is_dir() and (path / _ABOUT).is_file() and (path / _FILES[0]).is_file()


def read_holdings(folder: Path) -> Holdings:
    """Reads what a snapshot holds.

    Raises:
        SnapshotError: A file is missing, damaged or altered.
    """
    about = read_about(folder)
    tables = []
    for name in _FILES:
        path = folder / name
        try:
            if hash_of(path) != about.sha256.get(name):
                raise SnapshotError(f"{path} does not match its hash in {_ABOUT}: it was altered or damaged")
            tables.append(pq.read_table(path))
        except (OSError, pa.ArrowException) as error:
            raise SnapshotError(f"{path} cannot be read ({error})") from error
    try:
        return _holdings_of(*tables)
    except (KeyError, IndexError, TypeError, ValueError, AttributeError, pa.ArrowException) as error:
        # Each file is as its hash says, so other code wrote them: a column lacks or is of another type, or one names
        # users or movies that another has not.
        raise SnapshotError(
            f"{folder}: its tables are not those of format {FORMAT_VERSION} ({error!r}); remove it"
        ) from error


def _holdings_of(watched: pa.Table, users: pa.Table, movies: pa.Table) -> Holdings:
    user_ids = users["user_id"].to_pylist()
    columns = _movies_of(movies)
    return Holdings(
        user_ids,
        Profiles(
            users["gender"].to_pylist(),
            np.fromiter((np.nan if age is None else age for age in users["age"].to_pylist()), np.float32),
            users["occupation"].to_pylist(),
        ),
        users["zip"].to_pylist(),
        columns,
        _watched_of(watched, user_ids, columns.movie_ids),
    )


def _watched_table(holdings: Holdings) -> pa.Table:
    watched, newest = holdings.watched, holdings.watched.newest
    unrated = np.isnan(watched.ratings)
    return pa.table(
        {
            "user_id": pa.DictionaryArray.from_arrays(newest.users.astype(np.int32), pa.array(holdings.user_ids)),
            "movie_id": pa.DictionaryArray.from_arrays(
                newest.movies.astype(np.int32), pa.array(list(holdings.movies.movie_ids))
            ),
            "event_time_ms": newest.times_ms,
            "event_hash": newest.hashes,
            # Whether the newest event itself was rated: else the stars are of an older one.
            "is_rated": ~np.isnan(newest.ratings),
            "rating": pa.array(watched.ratings, mask=unrated),
            "rated_time_ms": pa.array(watched.rated_times_ms, mask=unrated),
            "rated_hash": pa.array(watched.rated_hashes, mask=unrated),
        }
    )


def _watched_of(table: pa.Table, user_ids: list[str], movie_ids: Any) -> Watched:
    def column(name: str, kind: type[np.generic], absent: float = 0) -> NDArray[Any]:
        values: NDArray[Any] = table[name].fill_null(absent).to_numpy().astype(kind)
        return values

    ratings = column("rating", np.float32, float("nan"))
    newest = Events(
        _positions(table["user_id"], {user_id: row for row, user_id in enumerate(user_ids)}),
        _positions(table["movie_id"], {movie_id: row for row, movie_id in enumerate(movie_ids)}),
        column("event_time_ms", np.int64),
        column("event_hash", np.uint64),
        np.where(table["is_rated"].to_numpy(), ratings, np.float32(np.nan)),
    )
    return Watched(newest, column("rated_time_ms", np.int64), column("rated_hash", np.uint64), ratings)


def _positions(column: pa.ChunkedArray, position_of: Mapping[str, int]) -> NDArray[np.int64]:
    parts = [np.zeros(0, np.int64)]
    for chunk in column.unify_dictionaries().chunks:
        rows = np.array([position_of[label] for label in chunk.dictionary.to_pylist()], np.int64)
        parts.append(rows[chunk.indices.to_numpy()])
    return np.concatenate(parts)


def _users_table(holdings: Holdings) -> pa.Table:
    profiles = holdings.profiles
    return pa.table(
        {
            "user_id": pa.array(holdings.user_ids, pa.string()),
            "gender": pa.array(list(profiles.genders), pa.string()),
            "age": pa.array(profiles.ages, mask=np.isnan(profiles.ages)),
            "occupation": pa.array(list(profiles.occupations), pa.string()),
            "zip": pa.array(holdings.zips, pa.string()),
        }
    )


def _movies_table(movies: MovieColumns) -> pa.Table:
    available = np.ones(len(movies), np.bool_) if movies.available is None else movies.available
    return pa.table(
        {
            "movie_id": pa.array(list(movies.movie_ids), pa.string()),
            "title": pa.array(list(movies.titles), pa.string()),
            "year": pa.array(movies.years, mask=np.isnan(movies.years)),
            "genres": pa.array([list(genres) for genres in movies.genres], pa.list_(pa.string())),
            # As JSON: which bags there are is up to the catalogue.
            "bags": [
                json.dumps({name: list(bag[row]) for name, bag in movies.bags.items()}) for row in range(len(movies))
            ],
            "available": available,
        }
    )


def _movies_of(table: pa.Table) -> MovieColumns:
    bags = [json.loads(text) for text in table["bags"].to_pylist()]
    names = list(dict.fromkeys(name for each in bags for name in each))
    return MovieColumns(
        table["movie_id"].to_pylist(),
        table["title"].to_pylist(),
        np.fromiter((np.nan if year is None else year for year in table["year"].to_pylist()), np.float32),
        [tuple(genres) for genres in table["genres"].to_pylist()],
        {name: [tuple(each.get(name, ())) for each in bags] for name in names},
        table["available"].to_numpy().astype(np.bool_),
    )
