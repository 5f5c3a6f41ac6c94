"""Puts a data set together from its files. Knows which ids belong together; knows no delimiter and no model."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trainer.data_cache import resolve_source
from trainer.dataset import Dataset, Interactions
from trainer.errors import DataError
from trainer.readers.broken_rows import BrokenRows
from trainer.readers.dataset_files import DatasetFiles, choose_beside, choose_files
from trainer.readers.id_column import ordered_ids
from trainer.readers.layouts import Layout, with_bags
from trainer.readers.movies_reader import read_movies
from trainer.readers.parquet_folder import FOLDER, is_parquet_folder, read_parquet_folder
from trainer.readers.ratings_reader import read_ratings
from trainer.readers.raw_table import detect_layout
from trainer.readers.read_options import ReadOptions
from trainer.readers.source import SourceFile, list_files
from trainer.readers.users_reader import Users, read_users
from two_tower.movie_columns import MovieColumns
from two_tower.serving import RatingScale
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
    if is_parquet_folder(path):
        return _read_mapped(path, options)
    files = choose_files(path, options)
    beside = _read_beside(path, files.movies, files.users, options)
    layouts, broken = beside.layouts, beside.broken
    layouts["ratings"] = detect_layout(files.ratings, "ratings", options.columns)
    known_movies = frozenset(beside.movies.movie_ids) if beside.movies is not None else None
    rows = read_ratings(files.ratings, layouts["ratings"], options.scale, known_movies, options.max_broken_share)
    broken.append(rows.broken)
    if not len(rows.user_codes):
        raise DataError(f"{files.ratings.shown}: has no usable rows")
    user_ids, user_rows = _rows_of(rows.user_codes, rows.user_labels, beside.user_ids)
    movie_ids, movie_rows = _rows_of(rows.movie_codes, rows.movie_labels, beside.movie_ids)
    interactions = Interactions(user_rows, movie_rows, rows.ratings, rows.event_times_ms)
    dataset = _assemble(_name_of(path), user_ids, movie_ids, interactions, rows.scale, rows.time_form, beside)
    notes = [*_notes(dataset, rows.scale_origin, rows.time_form), *(line for one in broken for line in one.describe())]
    return Reading(replace(dataset, notes=notes), files, layouts, rows.time_form, rows.scale_origin, broken)


@dataclass(frozen=True, slots=True)
class _Beside:
    """What stands beside the interactions: movies and users, None without a file, and how they were read."""

    movies: MovieColumns | None
    users: Users | None
    layouts: dict[str, Layout]
    broken: list[BrokenRows]

    @property
    def movie_ids(self) -> list[str]:
        return list(self.movies.movie_ids) if self.movies is not None else []

    @property
    def user_ids(self) -> list[str]:
        return self.users.user_ids if self.users is not None else []


def _read_beside(
    path: Path, movies_file: SourceFile | None, users_file: SourceFile | None, options: ReadOptions
) -> _Beside:
    layouts: dict[str, Layout] = {}
    broken: list[BrokenRows] = []
    movies: MovieColumns | None = None
    users: Users | None = None
    if movies_file is not None:
        layout = detect_layout(movies_file, "movies", options.columns)
        layouts["movies"] = with_bags(layout, movies_file.shown, options.movie_bags)
        movies, movie_table = read_movies(movies_file, layouts["movies"], options.max_broken_share)
        broken.append(movie_table.broken)
    elif options.movie_bags:
        raise DataError(f"{path}: no movies file, in which --movie-bag {options.movie_bags[0]} would be a column")
    if users_file is not None:
        layouts["users"] = detect_layout(users_file, "users", options.columns)
        users = read_users(users_file, layouts["users"], options.max_broken_share)
        broken.append(users.table.broken)
    return _Beside(movies, users, layouts, broken)


def _read_mapped(path: Path, options: ReadOptions) -> Reading:
    """Reads a folder whose interactions are larger than memory."""
    movies_file, users_file = choose_beside(path, options)
    beside = _read_beside(path, movies_file, users_file, options)
    found = read_parquet_folder(path, options, beside.movie_ids, beside.user_ids)
    beside.layouts["ratings"] = found.layout
    dataset = _assemble(
        _name_of(path), found.user_ids, found.movie_ids, found.rows, found.scale, found.time_form, beside
    )
    notes = _notes(dataset, found.scale_origin, found.time_form)
    notes += [line for one in beside.broken for line in one.describe()]
    first = next(file for file in list_files(path) if file.folder == FOLDER and file.name.endswith(".parquet"))
    files = DatasetFiles(first, movies_file, users_file)
    return Reading(
        replace(dataset, notes=notes), files, beside.layouts, found.time_form, found.scale_origin, beside.broken
    )


def _name_of(path: Path) -> str:
    return path.resolve().stem if path.is_file() else path.resolve().name


def _assemble(
    name: str,
    user_ids: list[str],
    movie_ids: list[str],
    interactions: Interactions,
    scale: RatingScale | None,
    time_form: str | None,
    beside: _Beside,
) -> Dataset:
    movies, users = beside.movies, beside.users
    unknown = Profiles.unknown(len(user_ids) - len(beside.user_ids))
    strangers = len(movie_ids) - len(beside.movie_ids)
    if movies is None or strangers:
        movies = _with_strangers(movies, movie_ids, strangers)
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
        zips=[*(users.zips if users else []), *[None] * len(unknown)],
        movies=movies,
        interactions=interactions,
        scale=scale,
        has_times=time_form is not None,
    )


def _with_strangers(movies: MovieColumns | None, movie_ids: list[str], count: int) -> MovieColumns:
    """Adds movies of which only the id is known, at the end."""
    empty = np.full(count, np.nan, np.float32)
    if movies is None:
        return MovieColumns(movie_ids, [""] * count, empty, [()] * count)
    return MovieColumns(
        movie_ids,
        [*movies.titles, *[""] * count],
        np.concatenate([movies.years, empty]),
        [*movies.genres, *[()] * count],
        {name: [*bag, *[()] * count] for name, bag in movies.bags.items()},
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


def _notes(dataset: Dataset, scale_origin: str, time_form: str | None) -> list[str]:
    notes = []
    if dataset.scale is None:
        notes.append(f"Ratings: {scale_origin}.")
    else:
        scale = dataset.scale
        notes.append(f"Ratings: {scale.low:g} to {scale.high:g} in steps of {scale.step:g}, {scale_origin}.")
    notes.append(f"Times: {time_form}." if time_form else "Times: none, so histories have no order.")
    return notes
