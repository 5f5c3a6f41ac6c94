"""Reads a file of movies: titles, years, genres. Knows how MovieLens writes them; knows no rating."""

import re

import numpy as np

from trainer.readers.keyed_table import KeyedTable, read_keyed_table
from trainer.readers.layouts import BAG, GENRE_FLAG, KNOWN, ML_100K_GENRES, Layout
from trainer.readers.source import SourceFile
from two_tower.movie_columns import MovieColumns

YEAR_IN_TITLE = re.compile(r"\((\d{4})\)(?!.*\(\d{4}\))")
YEAR_AT_END = re.compile(r"\s*\(\d{4}\)\s*$")
YEAR_IN_DATE = re.compile(r"(?<!\d)\d{4}(?!\d)")
NO_GENRE = frozenset({"", "(no genres listed)", "unknown"})
GENRE_SEPARATOR = "|"
YEARS = (1800, 2200)
"""First and last year that the catalogue keeps: marquee/v1/movie.proto."""
MAX_GENRES = 32
"""Genres of a movie that it keeps."""
MAX_NAME_BYTES = 64
"""Length of a genre or of a value of a bag that it keeps, in UTF-8."""
MAX_BAG_VALUES = 64
"""Values of a movie over all its bags that it keeps."""


def read_movies(file: SourceFile, layout: Layout, max_share: float) -> tuple[MovieColumns, KeyedTable]:
    """Reads a movies file; the movies keep its order.

    The year is that of the date or year column where the file has one, else the last "(dddd)" of the title. Years
    and genres that no catalogue keeps are left out and noted; of a long bag the head is kept.

    Raises:
        DataError: It is empty, damaged, or has too many broken rows.
    """
    table = read_keyed_table(file, layout, "movie", max_share)
    titles = table.texts("title")
    years = [year_of_date(text) for text in table.texts("year")] if "year" in layout.columns else map(year_of, titles)
    genres = _flagged_genres(table) if layout is KNOWN["u.item"] else table.mapped("genres", split_genres)
    years = table.storable(years, _storable_year, f"year not from {YEARS[0]} to {YEARS[1]}: read as unknown")
    too_much = f"over {MAX_GENRES} genres, or one over {MAX_NAME_BYTES} bytes: read without those"
    genres = table.storable(genres, _storable_genres, too_much)
    columns = MovieColumns(
        movie_ids=table.ids,
        titles=[YEAR_AT_END.sub("", title) for title in titles],
        years=np.fromiter(years, np.float32, len(table.ids)),
        genres=genres,
        bags=_bags(table, layout),
    )
    return columns, table


def year_of(title: str) -> float:
    """Returns the last "(dddd)" of a title as a year, NaN if there is none."""
    match = YEAR_IN_TITLE.search(title)
    return float(match.group(1)) if match else float("nan")


def year_of_date(text: str) -> float:
    """Returns the four digits of a date such as "01-Jan-1995" or "1995", NaN if there are none."""
    match = YEAR_IN_DATE.search(text)
    return float(match.group()) if match else float("nan")


def split_genres(text: str) -> tuple[str, ...]:
    """Splits "Action|Sci-Fi"; what MovieLens writes for none gives none."""
    names = dict.fromkeys(name.strip() for name in text.split(GENRE_SEPARATOR))
    return tuple(name for name in names if name not in NO_GENRE)


def _storable_year(year: float) -> float:
    return float("nan") if year < YEARS[0] or year > YEARS[1] else year


def _storable_genres(genres: tuple[str, ...]) -> tuple[str, ...]:
    kept = tuple(name for name in genres if len(name.encode()) <= MAX_NAME_BYTES)[:MAX_GENRES]
    return genres if kept == genres else kept


def _bags(table: KeyedTable, layout: Layout) -> dict[str, list[tuple[str, ...]]]:
    """Reads "Tom Hanks|Meg Ryan"; of a long list what the catalogue can keep of it, which is the head of the cast."""
    roles = [role for role in layout.columns if role.startswith(BAG)]
    at_most = MAX_BAG_VALUES // max(1, len(roles))
    return {
        role.removeprefix(BAG): [
            tuple(value for value in values if len(value.encode()) <= MAX_NAME_BYTES)[:at_most]
            for values in table.mapped(role, split_genres)
        ]
        for role in roles
    }


def _flagged_genres(table: KeyedTable) -> list[tuple[str, ...]]:
    flags = np.zeros((len(table.ids), len(ML_100K_GENRES)), np.bool_)
    for code in range(len(ML_100K_GENRES)):
        flags[:, code] = table.mapped(f"{GENRE_FLAG}{code}", lambda text: text == "1")
    names = np.asarray(ML_100K_GENRES, object)
    return [tuple(name for name in names[row] if name not in NO_GENRE) for row in flags]
