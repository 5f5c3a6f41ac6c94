"""Knows the layouts of the files that MovieLens has been published in, and of tables with a header. Reads no rows."""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from trainer.errors import DataError
from two_tower.serving import RatingScale

ML_100K_GENRES = (
    *("unknown", "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime", "Documentary", "Drama"),
    *("Fantasy", "Film-Noir", "Horror", "Musical", "Mystery", "Romance", "Sci-Fi", "Thriller", "War", "Western"),
)
"""The order of the genre flags in u.item, from u.genre of the official archive."""

ML_1M_OCCUPATIONS = (
    *("other", "academic/educator", "artist", "clerical/admin", "college/grad student", "customer service"),
    *("doctor/health care", "executive/managerial", "farmer", "homemaker", "K-12 student", "lawyer", "programmer"),
    *("retired", "sales/marketing", "scientist", "self-employed", "technician/engineer", "tradesman/craftsman"),
    *("unemployed", "writer"),
)
"""Occupation by its code in users.dat, from the README of the official archive."""

ALIASES: Mapping[str, Sequence[str]] = {
    "user": ("user", "userid", "uid", "userno", "customer", "customerid", "reviewerid"),
    "movie": ("movie", "movieid", "mid", "film", "filmid", "item", "itemid", "iid", "asin"),
    "rating": ("rating", "ratings", "stars", "score", "userrating"),
    "time": ("time", "timestamp", "ts", "date", "datetime", "eventtime", "ratedat", "watchedat", "unixreviewtime"),
    "gender": ("gender", "sex"),
    "age": ("age",),
    "occupation": ("occupation", "job", "profession"),
    "zip": ("zip", "zipcode", "postalcode", "postcode"),
    "title": ("title", "movietitle", "name"),
    "genres": ("genres", "genre"),
    "year": ("year", "releaseyear", "releasedate"),
}
"""Column names that are recognised without `--columns`, lower case and without "_", "-" and spaces."""

FileKind = Literal["ratings", "movies", "users"]

ROLES_OF: Mapping[FileKind, Sequence[str]] = {
    "ratings": ("user", "movie", "rating", "time"),
    "movies": ("movie", "title", "genres", "year"),
    "users": ("user", "gender", "age", "occupation", "zip"),
}
"""What the columns of each kind of file may mean."""

SCALES_OF_MOVIELENS = (RatingScale(1.0, 5.0, 1.0), RatingScale(0.5, 5.0, 0.5))


@dataclass(frozen=True, slots=True)
class Layout:
    """How one file is to be read.

    Attributes:
        label: How a person calls it, for example "MovieLens 1M (::)".
        delimiter: What separates columns; "" for Parquet.
        header: Names of all columns in order.
        has_header: Whether the first line holds them.
        columns: Column name by role.
        quoting: Whether a field may be quoted.
        encodings: Tried in turn on the whole file; with only "utf-8", a line that is not is a broken row.
        scales: The only scales that this layout may have; empty if any.
    """

    label: str
    delimiter: str
    header: tuple[str, ...]
    has_header: bool
    columns: Mapping[str, str]
    quoting: bool = True
    encodings: tuple[str, ...] = ("utf-8",)
    scales: tuple[RatingScale, ...] = field(default=())


def _headless(label: str, delimiter: str, header: str, encodings: tuple[str, ...] = ("utf-8", "latin-1")) -> Layout:
    names = tuple(header.split())
    roles = {name: name for name in names if name in ALIASES or name.startswith(GENRE_FLAG)}
    return Layout(label, delimiter, names, False, roles, quoting=False, encodings=encodings)


GENRE_FLAG = "genre_flag_"
"""Roles of the 0/1 columns of u.item: this and the genre's position in `ML_100K_GENRES`."""
_FLAGS = " ".join(f"{GENRE_FLAG}{code}" for code in range(len(ML_100K_GENRES)))

KNOWN: Mapping[str, Layout] = {
    "u.data": replace(
        _headless("MovieLens 100K ratings (tab)", "\t", "user movie rating time", ("utf-8",)),
        scales=(RatingScale(1.0, 5.0, 1.0),),
    ),
    "u.item": _headless("MovieLens 100K movies (|)", "|", f"movie title year video_date imdb_url {_FLAGS}"),
    "u.user": _headless("MovieLens 100K users (|)", "|", "user age gender occupation zip"),
    "ratings.dat": replace(
        _headless("MovieLens ratings (::)", "::", "user movie rating time", ("utf-8",)), scales=SCALES_OF_MOVIELENS
    ),
    "movies.dat": _headless("MovieLens movies (::)", "::", "movie title genres"),
    "users.dat": _headless("MovieLens users (::)", "::", "user gender age occupation zip"),
}
"""Files that are known by their name alone."""

RATING_FILES = ("u.data", "ratings.dat", "ratings.csv", "ratings.parquet")
MOVIE_FILES = ("u.item", "movies.dat", "movies.csv", "movies.parquet")
USER_FILES = ("u.user", "users.dat", "users.csv", "users.parquet")
TABLE_SUFFIXES = (".csv", ".tsv", ".txt", ".parquet")
OTHER_FILES = ("links.csv", "tags.csv", "genome-scores.csv", "genome-tags.csv", "tags.dat", "readme.txt")
"""Files of MovieLens archives that hold no ratings, movies or users."""


def known_layout(base_name: str) -> Layout | None:
    """Returns the layout of a file that its name gives away: the known names, and u1.base, u1.test and so on."""
    if base_name.startswith("u") and base_name.endswith((".base", ".test")):
        return KNOWN["u.data"]
    return KNOWN.get(base_name)


def layout_of_header(
    shown: str, header: Sequence[str], delimiter: str, kind: FileKind, columns: Mapping[str, str]
) -> Layout:
    """Finds which column of a table with a header plays which role: as stated in `columns`, else by its name.

    Raises:
        DataError: A stated column of a ratings file does not exist, a column name occurs twice, or an id has no column.
    """
    listed = f"its columns are: {', '.join(header)}"
    if len(set(header)) < len(header):
        raise DataError(f"{shown}, line 1: a column name occurs twice; {listed}")
    found = {role: name for role, name in columns.items() if name in header}
    absent = [f"{role}={columns[role]}" for role in columns if columns[role] and role not in found]
    if kind == "ratings" and any(role.split("=")[0] in ROLES_OF["ratings"] for role in absent):
        raise DataError(f"{shown}, line 1: no column for --columns {','.join(absent)}; {listed}")
    by_key: dict[str, str] = {}
    for name in header:
        by_key.setdefault(_key(name), name)
    for role in ROLES_OF[kind]:
        declined = columns.get(role) == ""
        aliases = [alias for alias in ALIASES[role] if alias in by_key] if role not in found and not declined else []
        if aliases:
            found[role] = by_key[aliases[0]]
    ids = {"ratings": ("user", "movie"), "movies": ("movie",), "users": ("user",)}[kind]
    if kind != "ratings" and ids[0] not in found and "id" in by_key:
        found[ids[0]] = by_key["id"]
    missing = [role for role in ids if role not in found]
    if missing:
        example = ",".join(f"{role}=NAME" for role in missing)
        raise DataError(
            f"{shown}, line 1: no column is known to hold the {' or the '.join(missing)} ids; {listed}; "
            f"name it with --columns {example}"
        )
    is_movielens = tuple(header[:3]) == ("userId", "movieId", "rating")
    label = "Parquet" if not delimiter else "MovieLens CSV" if is_movielens else f"table with {delimiter!r}"
    scales = SCALES_OF_MOVIELENS if is_movielens else ()
    roles = {role: found[role] for role in ROLES_OF[kind] if role in found}
    return Layout(label, delimiter, tuple(header), True, roles, scales=scales)


BAG = "bag:"
"""Before a bag's name, the role of its column."""
MAX_BAGS = 8
"""Bags of a movie that the catalogue keeps: marquee/v1/movie.proto."""
MAX_BAG_NAME_BYTES = 64
"""Length of a bag's name that it keeps, in UTF-8."""


def with_bags(layout: Layout, shown: str, bags: Sequence[str]) -> Layout:
    """Adds the columns of bags to the layout of a movies file.

    Raises:
        DataError: There is no such column, there are more than a catalogue keeps, or its name is longer than it keeps.
    """
    if not bags:
        return layout
    if len(bags) > MAX_BAGS:
        raise DataError(
            f"--movie-bag was given {len(bags)} times; a catalogue keeps at most {MAX_BAGS} bags of a movie"
        )
    absent = [name for name in bags if name not in layout.header or not layout.has_header]
    if absent:
        columns = ", ".join(layout.header) if layout.has_header else "none with a name"
        raise DataError(f"{shown}: no column for --movie-bag {', '.join(absent)}; its columns are: {columns}")
    return replace(layout, columns={**layout.columns, **{BAG + name: name for name in bags}})


def split_header(line: str) -> tuple[list[str], str]:
    """Splits the first line of a table by the delimiter that gives the most columns; returns names and delimiter."""
    choices = [next(csv.reader(io.StringIO(line), delimiter=mark), []) for mark in ",\t;|"]
    best = max(range(len(choices)), key=lambda choice: len(choices[choice]))
    return choices[best], ",\t;|"[best]


def _key(name: str) -> str:
    return "".join(letter for letter in name.lower() if letter not in "_- ")
