"""Rows on disk are divided by the same rules as rows in memory, and again in the same way."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.toy_dataset import toy_dataset
from trainer.dataset import Dataset, Interactions
from trainer.errors import HoldoutError
from trainer.evaluation import evaluate
from trainer.fits import fit_function, silent
from trainer.fits.mean import Options as MeanOptions
from trainer.fits.two_tower import Options, fit
from trainer.readers.mapped_columns import ColumnWriter, are_mapped
from trainer.snapshot import Snapshot, divide, hash_of_data
from trainer.splits import parse_holdout, split


@pytest.fixture
def snapshot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Snapshot:
    """The toy data, its interactions sorted and on disk."""
    monkeypatch.setenv("MARQUEE_CACHE", str(tmp_path))
    data = toy_dataset()
    rows = data.interactions
    writer = ColumnWriter(tmp_path / "columns", len(rows))
    writer.append(rows.take(np.lexsort((rows.event_times_ms, rows.user_rows))))
    mapped = replace_rows(data, writer.finish())
    return Snapshot(mapped, tmp_path, hash_of_data(mapped), 0)


def replace_rows(data: Dataset, rows: Interactions) -> Dataset:
    return replace(data, interactions=rows)


def pairs(rows: Interactions) -> set[tuple[int, int]]:
    return set(zip(rows.user_rows.tolist(), rows.movie_rows.tolist(), strict=True))


@pytest.mark.parametrize(
    ("holdout", "judged_on", "held_out", "learnt"),
    [("leave-last", "test", 60, 840), ("leave-last", "validation", 60, 780), ("temporal:0.2", "test", 180, 720)],
)
def test_what_is_held_out_is_not_learnt(
    snapshot: Snapshot, holdout: str, judged_on: str, held_out: int, learnt: int
) -> None:
    """The parts have no row in common, and the counts are those of the rule."""
    parts = divide(snapshot, holdout, 0, judged_on)  # type: ignore[arg-type]

    assert (len(parts.held_out), len(parts.train)) == (held_out, learnt)
    assert not pairs(parts.train) & pairs(parts.held_out)
    assert pairs(parts.train) <= pairs(snapshot.data.interactions)
    assert are_mapped(parts.train)
    assert not are_mapped(parts.held_out)


def test_training_and_judging_work_on_rows_on_disk(snapshot: Snapshot) -> None:
    """As on the same rows in memory, to the last digit."""
    parts = divide(snapshot, "random:0.1", 3)
    copied = parts.train.take(np.arange(len(parts.train)))

    found = []
    for rows in (parts.train, copied):
        model = fit(replace_rows(snapshot.data, rows), Options(epochs=2), seed=0, progress=silent)
        found.append(evaluate(model, snapshot.data, rows, parts.held_out, protocol="").metrics)

    assert found[0] == found[1]
    assert found[0].num_ratings == len(parts.held_out) == 90


def test_a_rule_that_needs_the_order_of_a_file_is_refused(snapshot: Snapshot) -> None:
    """The message names those that work."""
    with pytest.raises(HoldoutError, match="random:F, temporal:F, newest:F, leave-last or none"):
        divide(snapshot, "every:5", 0)


def test_newest_holds_out_what_it_does_in_memory(snapshot: Snapshot) -> None:
    """Everything after one moment; what no row was learnt from is judged, too."""
    parts = divide(snapshot, "newest:0.2", 0)

    rows = snapshot.data.interactions.take(np.arange(900))
    expected = split(replace_rows(snapshot.data, rows), parse_holdout("newest:0.2"), 0)
    assert pairs(parts.held_out) == pairs(expected.test)
    assert pairs(parts.train) == pairs(expected.train)


def test_newest_of_data_without_times_is_refused(snapshot: Snapshot) -> None:
    """With rules that would work."""
    untimed = replace(snapshot, data=replace(snapshot.data, has_times=False))

    with pytest.raises(HoldoutError, match="has no times, so no rating is later than another; random:F"):
        divide(untimed, "newest:0.2", 0)


def test_none_leaves_all_rows_where_they_are(snapshot: Snapshot) -> None:
    """Nothing is written again, and nothing is judged."""
    parts = divide(snapshot, "none", 0)

    model = fit_function("mean").fit(snapshot.data, MeanOptions(), seed=0, progress=silent)
    assert evaluate(model, snapshot.data, parts.train, parts.held_out, protocol="none").metrics.rmse is None
    assert parts.train is snapshot.data.interactions
    assert len(parts.held_out) == 0
    assert parts.trained_rows.count == 900


def test_the_same_data_is_divided_in_the_same_way(snapshot: Snapshot, tmp_path: Path) -> None:
    """Found in the cache or not; a checkpoint's own rows are found again by its manifest."""
    first = divide(snapshot, "random:0.1", 3)
    for kept in (tmp_path / "interactions").iterdir():
        (kept / "count").unlink()

    again = divide(snapshot, "random:0.1", 3)

    assert again.trained_rows == first.trained_rows
    assert pairs(again.held_out) == pairs(first.held_out)
    assert divide(snapshot, "random:0.1", 4).trained_rows != first.trained_rows
