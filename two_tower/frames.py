"""Reads columns of tables such as data frames. Knows names and kinds of columns; knows no model and no frame class.

A frame is whatever gives columns by name: a pandas or polars DataFrame, a dict of lists, a dict of arrays.
"""

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from two_tower.errors import FrameError
from two_tower.movie_columns import MovieColumns
from two_tower.user_columns import Profiles

_ALIASES = {"user_id": "userId", "movie_id": "movieId"}
_NO_GENRES = frozenset({"", "(no genres listed)", "unknown"})
_YEAR = re.compile(r"\((\d{4})\)(?!.*\(\d{4}\))")
_YEAR_AT_END = re.compile(r"\s*\(\d{4}\)\s*$")
_LATEST_MS = 253_402_300_799_999
"""The end of 9999, as far as the feature store reckons."""


class Frame(Protocol):
    """Columns by name."""

    def __contains__(self, name: Any, /) -> bool: ...

    def __getitem__(self, name: Any, /) -> Any: ...


def has(frame: Frame, name: str) -> bool:
    """Tells whether a frame has a column, by its name or as MovieLens calls it."""
    return name in frame or _ALIASES.get(name, name) in frame


def column(frame: Frame, name: str, what: str) -> NDArray[Any]:
    """Returns a column as an array.

    Raises:
        FrameError: There is none.
    """
    if not has(frame, name):
        raise FrameError(f"{what} have no column {name!r}")
    values = frame[name if name in frame else _ALIASES[name]]
    if not isinstance(values, np.ndarray) and not hasattr(values, "__array__"):
        listed = list(values)
        if any(isinstance(value, list | tuple) for value in listed):
            found = np.empty(len(listed), object)
            found[:] = listed
            return found
    array: NDArray[Any] = np.asarray(values)
    return array


def ids(frame: Frame, name: str, what: str) -> list[str | None]:
    """Returns a column of ids; None where there is none.

    Raises:
        FrameError: There is no such column, or it holds numbers that are not whole.
    """
    found: list[str | None] = []
    for row, value in enumerate(column(frame, name, what).tolist()):
        if value is None or value != value:
            found.append(None)
        elif isinstance(value, float):
            if not value.is_integer():
                raise FrameError(
                    f"{what}: {name} holds {value} in row {row} (the first is 0); ids are strings or whole numbers"
                )
            found.append(str(int(value)))
        else:
            found.append(str(value))
    return found


def required_ids(frame: Frame, name: str, what: str) -> list[str]:
    """Returns a column of ids that may not lack one.

    Raises:
        FrameError: There is no such column, or an id is missing.
    """
    found = ids(frame, name, what)
    missing = sum(value is None for value in found)
    if missing:
        raise FrameError(f"{what}: {name} is missing in {missing} of {len(found)} rows")
    return [value for value in found if value is not None]


def numbers(frame: Frame, name: str, what: str, size: int) -> NDArray[np.float64]:
    """Returns a column of numbers, NaN throughout if the frame has no such column.

    Raises:
        FrameError: It holds something else.
    """
    if not has(frame, name):
        return np.full(size, np.nan)
    try:
        values = column(frame, name, what)
        return np.array([np.nan if value is None else value for value in values.tolist()], np.float64)
    except (TypeError, ValueError) as error:
        raise FrameError(f"{what}: {name} holds what is no number ({error})") from error


def times_ms(frame: Frame, what: str, size: int) -> NDArray[np.int64]:
    """Returns the column timestamp in epoch milliseconds, 0 throughout if the frame has none; without a zone it is UTC.

    Raises:
        FrameError: It holds something else, or a moment outside 1970 to 9999.
    """
    if not has(frame, "timestamp"):
        return np.zeros(size, np.int64)
    values = column(frame, "timestamp", what)
    if values.dtype == object and len(values) and all(isinstance(value, datetime) for value in values):
        aware = [value if value.tzinfo else value.replace(tzinfo=UTC) for value in values]
        values = np.array([round(value.timestamp() * 1000) for value in aware], "datetime64[ms]")
    if np.issubdtype(values.dtype, np.datetime64):
        if np.isnat(values).any():
            raise FrameError(f"{what}: timestamp is missing in {int(np.isnat(values).sum())} of {size} rows")
        found = values.astype("datetime64[ms]").astype(np.int64)
    else:
        seconds = numbers(frame, "timestamp", what, size)
        if np.isnan(seconds).any():
            raise FrameError(f"{what}: timestamp is missing in {int(np.isnan(seconds).sum())} of {size} rows")
        found = np.round(seconds * 1000).astype(np.int64)
    if len(found) and not 0 <= int(found.min()) <= int(found.max()) <= _LATEST_MS:
        raise FrameError(f"{what}: timestamp must lie between 1970 and 9999: seconds since 1970, or datetime64")
    return found


def movie_columns(frame: Frame) -> MovieColumns:
    """Reads a catalogue: movie_id, title, year, genres, bags.

    Raises:
        FrameError: A movie has no id, or two have the same.
    """
    movie_ids = required_ids(frame, "movie_id", "movies")
    if len(set(movie_ids)) < len(movie_ids):
        raise FrameError(f"movies: {len(movie_ids) - len(set(movie_ids))} rows repeat a movie_id")
    size = len(movie_ids)
    raw = [title or "" for title in _texts(frame, "title", "movies", size)]
    if has(frame, "year"):
        years = numbers(frame, "year", "movies", size).astype(np.float32)
    else:
        found = [_YEAR.search(title) for title in raw]
        years = np.array([np.nan if match is None else float(match.group(1)) for match in found], np.float32)
    genres: Sequence[tuple[str, ...]] = [()] * size
    if has(frame, "genres"):
        genres = [_genres(value) for value in column(frame, "genres", "movies").tolist()]
    titles = [_YEAR_AT_END.sub("", title) for title in raw]
    return MovieColumns(movie_ids, titles, years, genres, _bags(frame))


def profiles(frame: Frame, size: int) -> Profiles:
    """Reads profiles: gender, age, occupation.

    Raises:
        FrameError: An age is no number.
    """
    return Profiles(
        _texts(frame, "gender", "users", size),
        numbers(frame, "age", "users", size).astype(np.float32),
        _texts(frame, "occupation", "users", size),
    )


def _texts(frame: Frame, name: str, what: str, size: int) -> list[str | None]:
    if not has(frame, name):
        return [None] * size
    return [None if value is None or value != value else str(value) for value in column(frame, name, what).tolist()]


def _genres(value: Any) -> tuple[str, ...]:
    if value is None or value != value:
        return ()
    names = value.split("|") if isinstance(value, str) else value
    return tuple(name for name in dict.fromkeys(str(name).strip() for name in names) if name not in _NO_GENRES)


def _bags(frame: Frame) -> dict[str, list[tuple[str, ...]]]:
    names: Any = getattr(frame, "columns", frame)
    bags = {}
    for name in map(str, names):
        if name in ("movie_id", "movieId", "title", "year", "genres"):
            continue
        values = column(frame, name, "movies")
        if values.dtype == object and len(values) and all(isinstance(value, list | tuple) for value in values):
            bags[name] = [tuple(str(each) for each in value) for value in values]
    return bags
