"""Fixes which data and rows a checkpoint was made from, so that they can be found again. Knows hashes and splits."""

import hashlib
import json
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from trainer.block_split import split_by_blocks
from trainer.data_cache import resolve_source
from trainer.dataset import Dataset, Interactions
from trainer.errors import DataError, HoldoutError, TrainerError
from trainer.readers.dataset_reader import read_with_report
from trainer.readers.mapped_columns import ROWS_AT_ONCE, are_mapped
from trainer.readers.read_options import ReadOptions
from trainer.splits import Holdout, parse_holdout, split
from trainer.store_snapshots.data import read_snapshot_data
from trainer.store_snapshots.folder import About, is_snapshot
from two_tower.manifest import Manifest, TrainedRows

JudgedOn = Literal["test", "validation"]

_VALIDATION_SUFFIX = ", judged on validation rows"


class OtherDataError(TrainerError):
    """The data or its split is not the one that the checkpoint was made from."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A data set as it was found.

    Attributes:
        data: The data set.
        path: The file or folder that it was read from.
        sha256: Hash over users, movies and interactions.
        taken_at_ms: When the file of ratings was last written: whoever was deleted later may still be in it.
    """

    data: Dataset
    path: Path
    sha256: str
    taken_at_ms: int


@dataclass(frozen=True, slots=True)
class Parts:
    """The rows of one split.

    Attributes:
        train: The rows to learn from, in the order of the file.
        held_out: The rows to be judged on.
        trained_rows: Names the training rows for the manifest.
        notes: What was decided on the way, one sentence each.
    """

    train: Interactions
    held_out: Interactions
    trained_rows: TrainedRows
    notes: tuple[str, ...]


def take_snapshot(source: str, options: ReadOptions) -> Snapshot:
    """Reads a data set, or what a rebuild kept in a registry.

    Raises:
        DataError: The source cannot be used.
        SnapshotError: The registry's snapshot is damaged.
    """
    path = resolve_source(source)
    if is_snapshot(path):
        about, data = read_as_kept(path, options)
        return Snapshot(data, path, hash_of_data(data), about.taken_at_ms)
    now_ms = int(time.time() * 1000)
    reading = read_with_report(source, options)
    ratings = path / reading.files.ratings.name if path.is_dir() else path
    taken_at_ms = min(now_ms, int(ratings.stat().st_mtime * 1000))
    return Snapshot(reading.dataset, path, hash_of_data(reading.dataset), taken_at_ms)


def read_as_kept(path: Path, options: ReadOptions) -> tuple[About, Dataset]:
    """Reads what a rebuild kept.

    Raises:
        DataError: Something is stated of how to read it.
        SnapshotError: It is damaged.
    """
    if stated := options.stated():
        raise DataError(f"{path.name} is a snapshot, which is read as it was kept: leave out {', '.join(stated)}")
    return read_snapshot_data(path)


def default_holdout(data: Dataset) -> str:
    """Returns how rows are held out if nobody says: a tenth, the latest where there are times."""
    return "temporal:0.1" if data.has_times else "random:0.1"


def holdout_rule(holdout: str, path: Path) -> Holdout:
    """Reads a holdout as it is written on a command line; a file is looked for in the data's folder too.

    Raises:
        HoldoutError: It is none of the forms, or the file does not exist.
    """
    return parse_holdout(_find_holdout(holdout, path))


def require_holdout(holdout: str | None, source: str, judged_on: JudgedOn = "test") -> None:
    """Refuses before minutes of reading what no data could be divided by; None lets the data decide.

    Raises:
        DataError: There is no such source.
        HoldoutError: The holdout is none of the forms, its file does not exist, or it has no validation rows.
    """
    path = resolve_source(source)
    rule = None if holdout is None else holdout_rule(holdout, path)
    if judged_on == "validation" and (rule is None or rule.kind != "leave-last"):
        asked = "without --holdout there are" if holdout is None else f"--holdout {holdout} has"
        raise HoldoutError(f"{asked} no validation rows to judge on; --holdout leave-last has")


def divide(snapshot: Snapshot, holdout: str, seed: int, judged_on: JudgedOn = "test") -> Parts:
    """Divides the data into rows to learn from and rows to be judged on.

    Validation rows are there to choose options by. Once that is done they are rows like any other: a model that is
    judged on the test rows learns from them too.

    Args:
        snapshot: The data.
        holdout: How, as on a command line; a file is looked for in the data's folder too.
        seed: Seed of the split.
        judged_on: "validation" leaves the test rows alone: nothing learns from them or is judged on them.

    Raises:
        HoldoutError: The data cannot be divided that way.
    """
    data = snapshot.data
    if are_mapped(data.interactions):
        return _divide_mapped(snapshot, holdout, seed, judged_on)
    parts = split(data, holdout_rule(holdout, snapshot.path), seed)
    protocol = holdout
    if judged_on == "validation":
        if parts.validation is None:
            raise HoldoutError(f"--holdout {holdout} has no validation rows; leave-last has")
        train, held_out = parts.train, parts.validation
        protocol += _VALIDATION_SUFFIX
    else:
        train, held_out = _all_but(data, parts.test), parts.test
    trained_rows = TrainedRows(
        holdout=protocol, seed=seed, count=len(train), sha256=_hash_of_rows(train, len(data.movies), snapshot.sha256)
    )
    return Parts(train, held_out, trained_rows, parts.notes)


def _divide_mapped(snapshot: Snapshot, holdout: str, seed: int, judged_on: JudgedOn) -> Parts:
    parts = split_by_blocks(snapshot.data, snapshot.sha256, holdout, seed, judged_on)
    digest = hashlib.sha256(snapshot.sha256.encode())
    # They stand by user and time already; sorting them again would take them all into memory.
    _hash_columns(digest, parts.train)
    protocol = holdout + (_VALIDATION_SUFFIX if judged_on == "validation" else "")
    trained_rows = TrainedRows(holdout=protocol, seed=seed, count=len(parts.train), sha256=digest.hexdigest())
    return Parts(parts.train, parts.held_out, trained_rows, parts.notes)


def divide_again(snapshot: Snapshot, manifest: Manifest) -> Parts:
    """Divides the data as it was divided for a checkpoint.

    Raises:
        OtherDataError: It is not the data, or not the rows, that the checkpoint was made from.
        HoldoutError: The data cannot be divided that way.
    """
    if snapshot.sha256 != manifest.data_sha256:
        raise OtherDataError(
            f"{snapshot.path} does not hold the data that checkpoint {manifest.version} was trained on "
            f"({manifest.data_name}, hash {manifest.data_sha256[:12]}; found {snapshot.data.name}, hash "
            f"{snapshot.sha256[:12]}); give the same files and reading options as in training"
        )
    then = manifest.trained_rows
    on_validation = then.holdout.endswith(_VALIDATION_SUFFIX)
    holdout = then.holdout.removesuffix(_VALIDATION_SUFFIX)
    parts = divide(snapshot, holdout, then.seed, "validation" if on_validation else "test")
    if parts.trained_rows != then:
        raise OtherDataError(
            f"--holdout {holdout} with seed {then.seed} gives {parts.trained_rows.count:,} other training rows than "
            f"the {then.count:,} of checkpoint {manifest.version}; a holdout file must be the one used in training"
        )
    return parts


def hash_of_data(data: Dataset) -> str:
    """Returns a hash over everything that a fit or a publication may look at."""
    digest = hashlib.sha256()
    texts = (data.user_ids, data.profiles.genders, data.profiles.occupations, data.zips)
    movies = data.movies
    bags = {name: [list(bag) for bag in column] for name, column in movies.bags.items()}
    for column in (*texts, movies.movie_ids, movies.titles, [list(bag) for bag in movies.genres], bags):
        digest.update(json.dumps(column if isinstance(column, dict) else list(column), sort_keys=True).encode())
    scale = data.scale
    digest.update(json.dumps([scale and [scale.low, scale.high, scale.step], data.has_times]).encode())
    for array in (data.profiles.ages, movies.years):
        digest.update(_little_endian(array))
    _hash_columns(digest, data.interactions)
    return digest.hexdigest()


def _hash_columns(digest: "hashlib._Hash", rows: Interactions) -> None:
    for array in (rows.user_rows, rows.movie_rows, rows.ratings, rows.event_times_ms):
        for first in range(0, len(array), ROWS_AT_ONCE):
            digest.update(_little_endian(array[first : first + ROWS_AT_ONCE]))


def _hash_of_rows(rows: Interactions, num_movies: int, data_sha256: str) -> str:
    order = np.argsort(pair_numbers(rows, num_movies), kind="stable")
    digest = hashlib.sha256(data_sha256.encode())
    for array in (rows.user_rows, rows.movie_rows, rows.ratings, rows.event_times_ms):
        digest.update(_little_endian(array[order]))
    return digest.hexdigest()


def _all_but(data: Dataset, test: Interactions) -> Interactions:
    rows, num_movies = data.interactions, len(data.movies)
    return rows.take(~np.isin(pair_numbers(rows, num_movies), pair_numbers(test, num_movies)))


def pair_numbers(rows: Interactions, num_movies: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """Returns one number for each (user, movie), of which a data set has at most one row."""
    return rows.user_rows.astype(np.int64) * num_movies + rows.movie_rows


def _find_holdout(holdout: str, path: Path) -> str:
    folder = path if path.is_dir() else path.parent
    beside = folder / holdout
    return str(beside) if not Path(holdout).is_file() and beside.is_file() else holdout


def _little_endian(array: np.ndarray[tuple[int, ...], np.dtype[np.generic]]) -> bytes:
    return np.ascontiguousarray(array).astype(array.dtype.newbyteorder("<"), copy=False).tobytes()


def join_notes(notes: Iterable[str]) -> str:
    """Returns notes for a person, one a line."""
    return "\n".join(f"- {note}" for note in notes)
