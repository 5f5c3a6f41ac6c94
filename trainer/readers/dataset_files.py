"""Chooses which file of a source holds ratings, movies and users. Knows names and places; reads no rows."""

from dataclasses import dataclass
from pathlib import Path

from trainer.errors import DataError
from trainer.readers.layouts import MOVIE_FILES, OTHER_FILES, RATING_FILES, TABLE_SUFFIXES, USER_FILES
from trainer.readers.read_options import ReadOptions
from trainer.readers.source import SourceFile, list_files


@dataclass(frozen=True, slots=True)
class DatasetFiles:
    """The files of one data set; each is read by its own layout, so they may come from different publications."""

    ratings: SourceFile
    movies: SourceFile | None
    users: SourceFile | None


def choose_files(path: Path, options: ReadOptions) -> DatasetFiles:
    """Chooses the files of a folder, an archive or a single ratings file.

    Ratings are in the file with a MovieLens name, else in the only other table of the folder. Movies and users are
    looked for beside it. A single file stands alone: its neighbours are not looked at.

    Raises:
        DataError: There is no ratings file, or more than one candidate.
    """
    # Hidden files are notes of an operating system, such as the ._ratings.csv beside a ratings.csv packed on a Mac.
    files = [file for file in list_files(path) if not file.base_name.startswith(".")]
    ratings = files[0] if path.is_file() and len(files) == 1 else _ratings_file(path, files, options)
    beside = [file for file in files if file.folder == ratings.folder]
    return DatasetFiles(
        ratings,
        _stated(options.movies_file) or _one_of(path, beside, MOVIE_FILES),
        _stated(options.users_file) or _one_of(path, beside, USER_FILES),
    )


def choose_beside(path: Path, options: ReadOptions) -> tuple[SourceFile | None, SourceFile | None]:
    """Chooses the files of movies and of users of a folder whose interactions lie in a folder of their own.

    Raises:
        DataError: There is more than one candidate.
    """
    top = [file for file in list_files(path) if file.folder == "." and not file.base_name.startswith(".")]
    movies = _stated(options.movies_file) or _one_of(path, top, MOVIE_FILES)
    return movies, _stated(options.users_file) or _one_of(path, top, USER_FILES)


def _ratings_file(path: Path, files: list[SourceFile], options: ReadOptions) -> SourceFile:
    named = [file for file in files if file.base_name in RATING_FILES]
    others = {*MOVIE_FILES, *USER_FILES, *OTHER_FILES}
    others |= {stated.name.lower() for stated in (options.movies_file, options.users_file) if stated}
    tables = [file for file in files if file.base_name.endswith(TABLE_SUFFIXES) and file.base_name not in others]
    candidates = named or tables
    top = [file for file in candidates if file.folder == "."] or candidates
    if len(top) == 1:
        return top[0]
    if not top:
        present = ", ".join(file.name for file in files[:10]) or "nothing"
        raise DataError(
            f"{path}: holds no ratings file (it holds {present}); expected {', '.join(RATING_FILES)} or one other "
            f"table ({', '.join(TABLE_SUFFIXES)})"
        )
    raise DataError(
        f"{path}: more than one file may hold the ratings: {', '.join(f.name for f in top)}; name one as the data"
    )


def _one_of(path: Path, files: list[SourceFile], names: tuple[str, ...]) -> SourceFile | None:
    found = [file for file in files if file.base_name in names]
    if len(found) > 1:
        raise DataError(
            f"{path}: holds {' and '.join(file.name for file in found)}; keep one, or name one "
            f"with --{'movies' if names is MOVIE_FILES else 'users'}"
        )
    return found[0] if found else None


def _stated(path: Path | None) -> SourceFile | None:
    if path is None:
        return None
    if path.is_dir() or path.suffix.lower() == ".zip":
        raise DataError(f"{path}: must be one file, not a folder or an archive")
    return list_files(path)[0]
