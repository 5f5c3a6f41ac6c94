"""Divides interactions into rows to learn from and rows to be judged on. Knows times and chance; knows no model.

The holdouts, as they are written on a command line:

    random:F     a share F of all rows: the first int(F * n) of numpy's `default_rng(seed).permutation(n)`
    torch:F      a share F of all rows, those that PyTorch's `random_split` puts last after `manual_seed(seed)`
    temporal:F   of each user the latest int(F * n_u) rows
    newest:F     the latest share F of all rows: everything after one moment, about what serving will be asked
    after:MS     everything after one moment, in epoch milliseconds
    leave-last   of each user the latest row, and the one before it for validation
    every:N      rows 0, N, 2N, ... of the file
    FILE         the rows that a file lists, found by user and movie (u1.test of ml-100k)
    none         no row: for a model whose settings were judged before

Rows of one user with the same time are put in an order drawn with the seed. Without times `leave-last` takes a row
drawn at random, `temporal`, `newest` and `after` are refused. `leave-last` and `temporal` leave each user at least one
row to learn from: `leave-last` passes over users with fewer than three rows. `newest` and `after` hold out nothing of
their boundary moment, and know some of their users from no row at all. All parts keep the order of the file.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from trainer.dataset import Dataset, Interactions
from trainer.errors import HoldoutError
from trainer.readers.id_column import encode_column
from trainer.readers.raw_table import detect_layout, read_table
from trainer.readers.source import list_files

HOLDOUTS = (
    "random:F, torch:F, temporal:F, newest:F (0 < F < 1), after:MS, leave-last, every:N (N of 2 or more), none, or a "
    "file of held-out ratings"
)
_BARE: Mapping[str, Literal["leave-last", "none"]] = {"leave-last": "leave-last", "none": "none"}
_WITH_SHARE: Mapping[str, Literal["random", "torch", "temporal", "newest"]] = {
    "random": "random",
    "torch": "torch",
    "temporal": "temporal",
    "newest": "newest",
}
MIN_ROWS_TO_LEAVE_LAST = 3
"""One row to learn from, one for validation, one for the test."""
MAX_UNMATCHED_SHARE = 0.01
"""Share of a holdout file's rows that the data may lack, since readers set broken rows aside."""


@dataclass(frozen=True, slots=True)
class Holdout:
    """Which rows are held out.

    Attributes:
        kind: The rule.
        share: Of `random`, `torch`, `temporal` and `newest`, between 0 and 1.
        every: Of `every`, 2 or more.
        after_ms: Of `after`, epoch milliseconds.
        file: Of `file`.
    """

    kind: Literal["random", "torch", "temporal", "newest", "after", "leave-last", "every", "file", "none"]
    share: float = 0.0
    every: int = 0
    after_ms: int = 0
    file: Path | None = None

    def __str__(self) -> str:
        if self.kind == "file":
            return str(self.file)
        if self.kind == "every":
            return f"every:{self.every}"
        if self.kind == "after":
            return f"after:{self.after_ms}"
        return self.kind if self.kind in ("leave-last", "none") else f"{self.kind}:{self.share:g}"


@dataclass(frozen=True, slots=True)
class Split:
    """Rows to learn from and rows held out; no row is in two parts.

    Attributes:
        train: To learn from.
        test: To be judged on.
        validation: To choose by, where the holdout defines such rows; they are not in `train`.
        notes: What was decided on the way, one sentence each, for a person.
    """

    train: Interactions
    test: Interactions
    validation: Interactions | None = None
    notes: tuple[str, ...] = ()


def parse_holdout(text: str) -> Holdout:
    """Reads a holdout as it is written on a command line.

    Raises:
        HoldoutError: It is none of the forms, or the file does not exist.
    """
    kind, colon, amount = text.partition(":")
    if text in _BARE:
        return Holdout(_BARE[text])
    if colon and kind in _WITH_SHARE:
        share = _number(amount)
        if not 0 < share < 1:
            raise HoldoutError(f"--holdout {text}: F must lie between 0 and 1, for example {kind}:0.1")
        return Holdout(_WITH_SHARE[kind], share=share)
    if colon and kind == "every":
        if not (amount.isascii() and amount.isdigit() and int(amount) >= 2):
            raise HoldoutError(f"--holdout {text}: N must be a whole number of 2 or more, for example every:20")
        return Holdout("every", every=int(amount))
    if colon and kind == "after":
        if not (amount.isascii() and amount.isdigit()):
            raise HoldoutError(f"--holdout {text}: MS must be epoch milliseconds, for example after:893286638000")
        return Holdout("after", after_ms=int(amount))
    if Path(text).is_file():
        return Holdout("file", file=Path(text))
    raise HoldoutError(f"--holdout {text}: neither a file nor one of {HOLDOUTS}")


def split(dataset: Dataset, holdout: Holdout, seed: int) -> Split:
    """Divides a data set's interactions.

    Raises:
        HoldoutError: The holdout needs times that the data lacks, names rows that the data lacks, or leaves one side
            without rows.
    """
    rows = dataset.interactions
    validation: NDArray[np.int64] | None = None
    notes: tuple[str, ...] = ()
    match holdout.kind:
        case "random":
            test = np.random.default_rng(seed).permutation(len(rows))[: int(holdout.share * len(rows))]
        case "torch":
            drawn = torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed)).numpy()
            test = drawn[int((1 - holdout.share) * len(rows) + 1e-9) :]
        case "temporal" | "newest" | "after":
            if not dataset.has_times:
                raise HoldoutError(
                    f"--holdout {holdout}: {dataset.name} has no times, so no rating is later than another; "
                    "random:F, leave-last (a row of each user drawn at random), every:N and a file would work"
                )
            if holdout.kind == "temporal":
                test = _latest_share(rows, holdout.share, seed)
            else:
                after_ms = holdout.after_ms if holdout.kind == "after" else boundary_of_newest(rows, holdout.share)
                test = np.flatnonzero(rows.event_times_ms > after_ms)
        case "leave-last":
            test, validation = _last_two(rows, seed)
            if not dataset.has_times:
                notes = ("Without times, leave-last holds out rows of each user drawn at random.",)
        case "every":
            test = np.arange(0, len(rows), holdout.every)
        case "none":
            return Split(rows, rows.take(np.arange(0)))
        case "file":
            assert holdout.file is not None
            test, notes = _listed_rows(dataset, holdout.file)
    return _divide(rows, holdout, test, validation, notes)


def _divide(
    rows: Interactions,
    holdout: Holdout,
    test: NDArray[np.int64],
    validation: NDArray[np.int64] | None,
    notes: tuple[str, ...],
) -> Split:
    learn = np.ones(len(rows), np.bool_)
    learn[test] = False
    if validation is not None:
        learn[validation] = False
    if not len(test) or not learn.any():
        side = "nothing to learn from" if len(test) else "no row to be judged on"
        raise HoldoutError(f"--holdout {holdout}: leaves {side}, the data has {len(rows):,} rows; try random:0.1")
    kept_back = rows.take(np.sort(validation)) if validation is not None else None
    return Split(rows.take(learn), rows.take(np.sort(test)), kept_back, notes)


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return float("nan")


def _by_age(rows: Interactions, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Orders rows by user and time, ties drawn; returns the order, each ordered row's rank from the end, user sizes."""
    draw = np.random.default_rng(seed).permutation(len(rows))
    order = np.lexsort((draw, rows.event_times_ms, rows.user_rows))
    sizes = np.bincount(rows.user_rows)  # [U]
    ends = np.cumsum(sizes)
    from_end = ends[rows.user_rows[order]] - 1 - np.arange(len(rows))
    return order, from_end, sizes[rows.user_rows[order]]


def _latest_share(rows: Interactions, share: float, seed: int) -> NDArray[np.int64]:
    order, from_end, sizes = _by_age(rows, seed)
    # The epsilon keeps 0.29 * 100 from losing a row to binary fractions.
    latest: NDArray[np.int64] = order[from_end < np.floor(share * sizes + 1e-9)]
    return latest


def boundary_of_newest(rows: Interactions, share: float) -> int:
    """Returns the moment, epoch milliseconds, after which at most a share of the rows lies, and nearly that much."""
    oldest_first = np.sort(rows.event_times_ms)
    return int(oldest_first[max(0, len(rows) - 1 - int(share * len(rows) + 1e-9))])


def _last_two(rows: Interactions, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    order, from_end, sizes = _by_age(rows, seed)
    enough = sizes >= MIN_ROWS_TO_LEAVE_LAST
    return order[enough & (from_end == 0)], order[enough & (from_end == 1)]


def _listed_rows(dataset: Dataset, path: Path) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    file = list_files(path)[0]
    table = read_table(file, detect_layout(file, "ratings", {}), plain=("time",))
    table.broken.refuse_if_too_many(table.num_lines, MAX_UNMATCHED_SHARE)
    users, movies = encode_column(table.columns["user"]), encode_column(table.columns["movie"])
    user_rows = _rows_of(dataset.user_ids, users.labels)[users.codes]
    movie_rows = _rows_of(list(dataset.movies.movie_ids), movies.labels)[movies.codes]
    width = len(dataset.movies)
    listed = user_rows * width + movie_rows
    rows = dataset.interactions
    pairs = rows.user_rows.astype(np.int64) * width + rows.movie_rows
    unmatched = (user_rows < 0) | (movie_rows < 0) | ~np.isin(listed, pairs)
    if unmatched.mean() > MAX_UNMATCHED_SHARE:
        first = int(np.flatnonzero(unmatched)[0])
        line = int(table.lines_of(np.asarray([first]))[0])
        raise HoldoutError(
            f"{path}, line {line:,}: {dataset.name} has no rating of user {users.labels[users.codes[first]]!r} for "
            f"movie {movies.labels[movies.codes[first]]!r}, and of {int(unmatched.sum()):,} of {len(unmatched):,} rows "
            "in all; a holdout file must list rows of the data"
        )
    absent = int(unmatched.sum())
    notes = (f"{path}: {absent:,} rows are not in the data and were passed over.",) if absent else ()
    return np.flatnonzero(np.isin(pairs, listed[~unmatched])), notes


def _rows_of(ids: list[str], labels: list[str]) -> NDArray[np.int64]:
    position = {label: row for row, label in enumerate(ids)}
    return np.asarray([position.get(label, -1) for label in labels], np.int64)
