"""Divides interactions that lie on disk, a block of whole users at a time. Knows columns and holdouts; knows no model.

Rules that look at the order of the file or at a list, which such data has not, are refused: every:N, torch:F, a file.
What is held out of users beyond `JUDGED_USERS` is neither learned from nor judged on: judging millions tells no more.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from trainer.data_cache import cache_folder
from trainer.dataset import Dataset, Interactions
from trainer.errors import HoldoutError
from trainer.readers.mapped_columns import (
    ROWS_AT_ONCE,
    ColumnWriter,
    blocks_of_users,
    in_memory,
    open_columns,
    rows_of_users,
)
from trainer.splits import Holdout, Split, parse_holdout, split

JUDGED_USERS = 10_000
"""Users that a model is judged on; the standard error of their NDCG@10 is about .002."""

_KINDS = ("random", "temporal", "newest", "leave-last", "none")


@dataclass(frozen=True, slots=True)
class BlockSplit:
    """Attributes: `train` lies on disk, `held_out` in memory; `notes` are for a person, one sentence each."""

    train: Interactions
    held_out: Interactions
    notes: tuple[str, ...]


def split_by_blocks(
    data: Dataset, data_sha256: str, holdout: str, seed: int, judged_on: Literal["test", "validation"]
) -> BlockSplit:
    """Divides the rows, or finds in the cache how they were divided.

    Raises:
        HoldoutError: The rule is none of `_KINDS`, or the data cannot be divided by it.
    """
    rule = parse_holdout(holdout)
    if rule.kind not in _KINDS:
        raise HoldoutError(
            f"--holdout {holdout}: data on disk is divided by random:F, temporal:F, newest:F, leave-last or none"
        )
    if rule.kind == "none":
        nothing = data.interactions.take(np.zeros(0, np.int64))
        return BlockSplit(data.interactions, nothing, ())
    name = hashlib.sha256(f"{data_sha256} {holdout} {seed} {judged_on}".encode()).hexdigest()[:32]
    folders = [cache_folder() / "interactions" / f"{name}-{part}" for part in ("train", "held-out")]
    if not all((folder / "count").exists() for folder in folders):
        _write(data, folders, seed, _dividing(data, rule), judged_on)
    train, held_out = (open_columns(folder) for folder in folders)
    if not len(train) or not len(held_out):
        raise HoldoutError(
            f"--holdout {holdout}: leaves nothing to learn from or no row to be judged on; try random:0.1"
        )
    users = np.unique(held_out.user_rows)
    notes: tuple[str, ...] = ()
    if len(users) > JUDGED_USERS:
        notes = (f"Judged on {JUDGED_USERS:,} users, drawn from {len(users):,} with held-out rows.",)
        users = np.sort(np.random.default_rng(seed).choice(users, JUDGED_USERS, replace=False))
    return BlockSplit(train, rows_of_users(held_out, users, len(data.user_ids)), notes)


def _dividing(data: Dataset, rule: Holdout) -> Callable[[Dataset, int], Split]:
    """Returns what divides a block, given a seed for its chance."""
    if rule.kind != "newest":
        return lambda block, chance: split(block, rule, chance)
    boundary_ms = _boundary_ms(data, rule)

    def divide(block: Dataset, _: int) -> Split:
        late = block.interactions.event_times_ms > boundary_ms
        return Split(block.interactions.take(~late), block.interactions.take(late))

    return divide


def _boundary_ms(data: Dataset, rule: Holdout) -> int:
    """Returns the moment after which rows are held out: that of `splits`, found by halving instead of sorting.

    Raises:
        HoldoutError: The data has no times.
    """
    if not data.has_times:
        raise HoldoutError(
            f"--holdout {rule}: {data.name} has no times, so no rating is later than another; random:F or "
            "leave-last (a row of each user drawn at random) would work"
        )
    times = data.interactions.event_times_ms
    learnt = max(1, len(times) - int(rule.share * len(times) + 1e-9))
    starts = range(0, len(times), ROWS_AT_ONCE)
    low = min(int(times[start : start + ROWS_AT_ONCE].min()) for start in starts)
    high = max(int(times[start : start + ROWS_AT_ONCE].max()) for start in starts)
    while low < high:
        middle = (low + high) // 2
        until = sum(int(np.count_nonzero(times[start : start + ROWS_AT_ONCE] <= middle)) for start in starts)
        low, high = (low, middle) if until >= learnt else (middle + 1, high)
    return low


def _write(
    data: Dataset,
    folders: list[Path],
    seed: int,
    divide: Callable[[Dataset, int], Split],
    judged_on: Literal["test", "validation"],
) -> None:
    rows = data.interactions
    writers = [ColumnWriter(folder, len(rows)) for folder in folders]
    for number, some in enumerate(blocks_of_users(rows)):
        block = in_memory(rows, some)
        first = int(block.user_rows[0])
        # Rows of users count from the block's first, so that a rule's work is that of the block.
        moved = replace(block, user_rows=block.user_rows - np.int32(first))
        chance = int(np.random.SeedSequence([seed, number]).generate_state(1)[0])
        try:
            parts = divide(replace(data, interactions=moved), chance)
        except HoldoutError as error:
            if not data.has_times and "no times" in str(error):
                raise
            parts = Split(moved, moved.take(np.zeros(0, np.int64)))
        train, held_out = parts.train, parts.test
        if parts.validation is not None:
            if judged_on == "validation":
                held_out = parts.validation
            else:
                train = _merged(train, parts.validation)
        elif judged_on == "validation":
            raise HoldoutError("of data on disk only leave-last has validation rows")
        for writer, part in zip(writers, (train, held_out), strict=True):
            writer.append(replace(part, user_rows=part.user_rows + np.int32(first)))
    for writer in writers:
        writer.finish()


def _merged(some: Interactions, others: Interactions) -> Interactions:
    """Puts two parts of a block back together, sorted by user and time."""
    users = np.concatenate([some.user_rows, others.user_rows])
    times = np.concatenate([some.event_times_ms, others.event_times_ms])
    whole = Interactions(
        users,
        np.concatenate([some.movie_rows, others.movie_rows]),
        np.concatenate([some.ratings, others.ratings]),
        times,
    )
    return whole.take(np.lexsort((times, users)))
