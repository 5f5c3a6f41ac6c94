"""Reads a file of ratings (or of plain views) into columns, and sets broken rows aside by rule.

Rules, each row falling under the first that fits: a row with too few or too many columns, not UTF-8, without user or
movie, with an id that the services refuse, whose rating is no number or off the scale, whose time is none, or whose
movie the movies file lacks is skipped and counts as broken. Of several rows of one user and movie the newest stays, the
last in the file among equally new ones; the others do not count as broken.
"""

from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from trainer.readers.broken_rows import NOT_UTF8, SHOWN_PER_REASON, BrokenRows
from trainer.readers.event_times import parse_times
from trainer.readers.id_column import REFUSED_ID, EncodedColumn, encode_column, refused_ids, shown_id
from trainer.readers.layouts import Layout
from trainer.readers.rating_scale import detect_scale, on_scale
from trainer.readers.raw_table import RawTable, read_table
from trainer.readers.source import SourceFile
from two_tower.serving import RatingScale

LARGEST_RATING = 1e6
"""What lies further from 0 is not taken for a number of stars."""


@dataclass(frozen=True, slots=True)
class RatingRows:
    """The usable rows of a ratings file, in file order.

    Attributes:
        user_codes: Into `user_labels`. int32 [n]
        user_labels: User ids, some perhaps without a usable row.
        movie_codes: Into `movie_labels`. int32 [n]
        movie_labels: Movie ids, some perhaps without a usable row.
        ratings: Stars, NaN throughout if there is no scale. float32 [n]
        event_times_ms: 0 throughout if there are no times. int64 [n]
        time_form: How the file writes times, None if it has none.
        scale: The rating scale, None if there are no ratings.
        scale_origin: Where the scale comes from, for a person.
        num_lines: Rows of the file, broken ones included.
        layout: How it was read.
        broken: What was set aside.
    """

    user_codes: NDArray[np.int32]
    user_labels: list[str]
    movie_codes: NDArray[np.int32]
    movie_labels: list[str]
    ratings: NDArray[np.float32]
    event_times_ms: NDArray[np.int64]
    time_form: str | None
    scale: RatingScale | None
    scale_origin: str
    num_lines: int
    layout: Layout
    broken: BrokenRows


class _Sieve:
    """Holds which rows are still good, and records those that a rule takes out."""

    def __init__(self, table: RawTable) -> None:
        self._table = table
        self.good = np.ones(table.num_rows, np.bool_)
        self.num_blank = 0

    def drop(self, bad: NDArray[np.bool_], rule: str, values: "_Texts", *, harmless: bool = False) -> None:
        """Takes out the good rows among `bad` [num_rows]; `values` says what stood in a row."""
        rows = np.flatnonzero(bad & self.good)
        if len(rows):
            self.good[rows] = False
            shown = rows[:SHOWN_PER_REASON]
            texts = [values.at(int(row)) for row in shown]
            self._table.broken.add(rule, self._table.lines_of(shown).tolist(), texts, len(rows), harmless=harmless)

    def drop_blank(self, bad: NDArray[np.bool_]) -> None:
        """Takes out lines on which nothing stands."""
        self.num_blank = int(bad.sum())
        self.good &= ~bad


@dataclass(frozen=True, slots=True)
class _Texts:
    """Says what stood in a row: the named columns, as the file had them."""

    columns: Sequence[tuple[str, EncodedColumn]]

    def at(self, row: int) -> str:
        return ", ".join(f"{name} {shown_id(column.labels[column.codes[row]])}" for name, column in self.columns)


def read_ratings(
    file: SourceFile, layout: Layout, scale: RatingScale | None, known_movies: AbstractSet[str] | None, max_share: float
) -> RatingRows:
    """Reads a ratings file.

    Args:
        file: The file.
        layout: How to read it.
        scale: The scale as stated by the caller, else detected.
        known_movies: Ids of the movies file, None if there is none.
        max_share: Share of broken rows above which the file is refused.

    Raises:
        DataError: It is empty, damaged, or has too many broken rows.
    """
    table = read_table(file, layout, plain=("time",))
    sieve = _Sieve(table)
    users, movies = encode_column(table.columns["user"]), encode_column(table.columns["movie"])
    ids = _Texts([("user", users), ("movie", movies)])
    no_user, no_movie = _has_label(users, ""), _has_label(movies, "")
    if table.broken.unit == "line":
        sieve.drop_blank(no_user & no_movie)
    for column in (users, movies):
        if column.not_utf8 is not None:
            sieve.drop(column.not_utf8, NOT_UTF8, ids)
    sieve.drop(no_user | no_movie, "no user or no movie: skipped", ids)
    sieve.drop(refused_ids(users), f"user id {REFUSED_ID}: skipped", _Texts([("user", users)]))
    sieve.drop(refused_ids(movies), f"movie id {REFUSED_ID}: skipped", _Texts([("movie", movies)]))
    ratings, scale, origin = _ratings(table, sieve, scale, ids)
    times, time_form = _times(table, sieve, ids)
    if known_movies is not None:
        known = np.asarray([label in known_movies for label in movies.labels], np.bool_)
        if not known.all():
            sieve.drop(~known[movies.codes], "movie that the movies file lacks: skipped", ids)
    table.broken.refuse_if_too_many(table.num_lines - sieve.num_blank, max_share)
    older = _older_duplicates(users, movies, times, sieve.good)
    if older is not None:
        sieve.drop(older, "rated again by the same user: the newest rating stays", ids, harmless=True)
    good = slice(None) if sieve.good.all() else sieve.good
    return RatingRows(
        users.codes[good],
        users.labels,
        movies.codes[good],
        movies.labels,
        ratings[good],
        times[good],
        time_form,
        scale,
        origin,
        table.num_lines - sieve.num_blank,
        layout,
        table.broken,
    )


def _has_label(column: EncodedColumn, label: str) -> NDArray[np.bool_]:
    if label not in column.labels:
        return np.zeros(len(column.codes), np.bool_)
    return np.asarray(column.codes == column.labels.index(label))


def _ratings(
    table: RawTable, sieve: _Sieve, stated: RatingScale | None, ids: _Texts
) -> tuple[NDArray[np.float32], RatingScale | None, str]:
    if "rating" not in table.columns:
        return np.full(table.num_rows, np.nan, np.float32), None, "no rating column: retrieval only"
    column = encode_column(table.columns["rating"])
    texts = _Texts([*ids.columns, ("rating", column)])
    values = np.asarray(pd.to_numeric(pd.Series(column.labels, dtype="str"), errors="coerce"), np.float64)
    finite = np.abs(values) <= LARGEST_RATING
    sieve.drop(~finite[column.codes], "rating is not a number: skipped", texts)
    counts = np.bincount(column.codes[sieve.good], minlength=len(values))
    met = counts > 0
    scale, origin = stated, "stated"
    if scale is None and met.any():
        scale = detect_scale(values[met], counts[met], table.layout.scales)
        origin = "as the format has it" if len(table.layout.scales) == 1 else "detected"
    if scale is None:
        return np.full(table.num_rows, np.nan, np.float32), None, "all ratings are the same: retrieval only"
    off = finite & ~on_scale(np.where(finite, values, scale.low), scale)
    if off.any():
        told = "detected; --scale states another" if origin == "detected" else origin
        rule = f"rating off the scale {scale.low:g} to {scale.high:g} in steps of {scale.step:g} ({told}): skipped"
        sieve.drop(off[column.codes], rule, texts)
    return values.astype(np.float32)[column.codes], scale, origin


def _times(table: RawTable, sieve: _Sieve, ids: _Texts) -> tuple[NDArray[np.int64], str | None]:
    if "time" not in table.columns:
        return np.zeros(table.num_rows, np.int64), None
    times = parse_times(table.columns["time"])
    if times.form is not None and (times.broken & sieve.good).any():
        texts = _Texts([*ids.columns, ("time", encode_column(table.columns["time"]))])
        sieve.drop(times.broken, f"time is not one of {times.form}: skipped", texts)
    return times.milliseconds, times.form


def _older_duplicates(
    users: EncodedColumn, movies: EncodedColumn, times: NDArray[np.int64], good: NDArray[np.bool_]
) -> NDArray[np.bool_] | None:
    """Tells which good rows a newer one of the same user and movie replaces; None if there are none. bool [n]."""
    pairs = users.codes.astype(np.int64) * len(movies.labels) + movies.codes
    rows = np.flatnonzero(good)
    pairs = pairs[rows]
    ordered = np.sort(pairs)
    repeated = ordered[1:][ordered[1:] == ordered[:-1]]
    if not len(repeated):
        return None
    among = rows[np.isin(pairs, np.unique(repeated))]
    pair_of = users.codes[among].astype(np.int64) * len(movies.labels) + movies.codes[among]
    order = np.lexsort((among, times[among], pair_of))
    replaced = np.append(pair_of[order][1:] == pair_of[order][:-1], False)
    older = np.zeros(len(good), np.bool_)
    older[among[order[replaced]]] = True
    return older
