"""Puts a data set together from its files. Knows which ids belong together; knows no delimiter and no model."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trainer.data_cache import resolve_source
from trainer.dataset import Dataset, Interactions
from trainer.errors import DataError
from trainer.readers.broken_rows import BrokenRows
from trainer.readers.dataset_files import DatasetFiles, choose_files
from trainer.readers.id_column import ordered_ids
from trainer.readers.layouts import Layout
from trainer.readers.movies_reader import read_movies
from trainer.readers.ratings_reader import RatingRows, read_ratings
from trainer.readers.raw_table import detect_layout
from trainer.readers.read_options import ReadOptions
from trainer.readers.users_reader import Users, read_users
from two_tower.movie_columns import MovieColumns
from two_tower.user_columns import Profiles


@dataclass(frozen=True, slots=True)
class Reading:
    """A data set with how it was read.

    Attributes:
        dataset: What came of it.
        files: Which files were read.
        layouts: How, by "ratings", "movies", "users".
        time_form: How times are written, None if there are none.
        scale_origin: Where the scale comes from.
        broken: What was set aside, file by file.
    """

    dataset: Dataset
    files: DatasetFiles
    layouts: dict[str, Layout]
    time_form: str | None
    scale_origin: str
    broken: list[BrokenRows]


def read_dataset(source: Path | str, options: ReadOptions | None = None) -> Dataset:
    """Reads a folder, a zip archive, a single ratings file or a downloaded data set by its name.

    Users and movies keep the order of their files; ids that only the ratings know follow, by number if all are whole
    numbers, else by text.

    Raises:
        DataError: The source cannot be used; names file, line, reason and cure.
    """
    return read_with_report(source, options).dataset


def read_with_report(source: Path | str, options: ReadOptions | None = None) -> Reading:
    """Does what `read_dataset` does and keeps what was detected.

    Raises:
        DataError: As `read_dataset`.
    """
    options = options or ReadOptions()
    path = resolve_source(source)
    files = choose_files(path, options)
    layouts: dict[str, Layout] = {}
    broken: list[BrokenRows] = []
    movies: MovieColumns | None = None
    users: Users | None = None
    if files.movies is not None:
        layouts["movies"] = detect_layout(files.movies, "movies", options.columns)
        movies, movie_table = read_movies(files.movies, layouts["movies"], options.max_broken_share)
        broken.append(movie_table.broken)
    if files.users is not None:
        layouts["users"] = detect_layout(files.users, "users", options.columns)
        users = read_users(files.users, layouts["users"], options.max_broken_share)
        broken.append(users.table.broken)
    layouts["ratings"] = detect_layout(files.ratings, "ratings", options.columns)
    known_movies = frozenset(movies.movie_ids) if movies is not None else None
    rows = read_ratings(files.ratings, layouts["ratings"], options.scale, known_movies, options.max_broken_share)
    broken.append(rows.broken)
    if not len(rows.user_codes):
        raise DataError(f"{files.ratings.shown}: has no usable rows")
    dataset = _assemble(_name_of(path), rows, movies, users)
    notes = [*_notes(dataset, rows), *(line for one in broken for line in one.describe())]
    return Reading(replace(dataset, notes=notes), files, layouts, rows.time_form, rows.scale_origin, broken)


def _name_of(path: Path) -> str:
    return path.resolve().stem if path.is_file() else path.resolve().name


def _assemble(name: str, rows: RatingRows, movies: MovieColumns | None, users: Users | None) -> Dataset:
    user_ids, user_rows = _rows_of(rows.user_codes, rows.user_labels, users.user_ids if users else [])
    movie_ids, movie_rows = _rows_of(rows.movie_codes, rows.movie_labels, list(movies.movie_ids) if movies else [])
    strangers = len(user_ids) - len(users.user_ids) if users else len(user_ids)
    unknown = Profiles.unknown(strangers)
    if movies is None:
        empty = np.full(len(movie_ids), np.nan, np.float32)
        movies = MovieColumns(movie_ids, [""] * len(movie_ids), empty, [()] * len(movie_ids))
    profiles = (
        unknown
        if users is None
        else Profiles(
            [*users.profiles.genders, *unknown.genders],
            np.concatenate([users.profiles.ages, unknown.ages]),
            [*users.profiles.occupations, *unknown.occupations],
        )
    )
    return Dataset(
        name=name,
        user_ids=user_ids,
        profiles=profiles,
        zips=[*(users.zips if users else []), *[None] * strangers],
        movies=movies,
        interactions=Interactions(user_rows, movie_rows, rows.ratings, rows.event_times_ms),
        scale=rows.scale,
        has_times=rows.time_form is not None,
    )


def _rows_of(codes: NDArray[np.int32], labels: list[str], listed: list[str]) -> tuple[list[str], NDArray[np.int32]]:
    """Gives each id a row: the listed ids first, then those that only occur in the ratings."""
    met = np.bincount(codes, minlength=len(labels)) > 0
    position = {label: row for row, label in enumerate(listed)}
    others = ordered_ids(
        label for label, is_met in zip(labels, met.tolist(), strict=True) if is_met and label not in position
    )
    position |= {label: len(listed) + row for row, label in enumerate(others)}
    row_of = np.asarray([position.get(label, -1) for label in labels], np.int32)
    return [*listed, *others], row_of[codes]


def _notes(dataset: Dataset, rows: RatingRows) -> list[str]:
    notes = []
    if dataset.scale is None:
        notes.append(f"Ratings: {rows.scale_origin}.")
    else:
        scale = dataset.scale
        notes.append(f"Ratings: {scale.low:g} to {scale.high:g} in steps of {scale.step:g}, {rows.scale_origin}.")
    notes.append(f"Times: {rows.time_form}." if rows.time_form else "Times: none, so histories have no order.")
    return notes
