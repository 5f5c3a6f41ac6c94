"""A label moves to a checkpoint that is no worse on rows that neither has seen, or with a reason on record."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.toy_dataset import toy_dataset
from trainer.dataset import Dataset
from trainer.promotion import (
    LaterRows,
    PromotionError,
    compare,
    find_later_rows,
    refit,
    require_all_movies,
    require_better,
)
from trainer.snapshot import OtherDataError, Snapshot, hash_of_data
from trainer.training import Request, train
from two_tower.checkpoint import Checkpoint, load
from two_tower.registry import Registry

Make = Callable[..., Checkpoint]


def snapshot_of(data: Dataset) -> Snapshot:
    return Snapshot(data, Path("toy"), hash_of_data(data), 0)


@pytest.fixture(scope="module")
def data() -> Dataset:
    """3,000 rows of a year."""
    return toy_dataset(num_users=200)


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Registry:
    """Where the checkpoints of this module are."""
    return Registry(tmp_path_factory.mktemp("registry"))


@pytest.fixture(scope="module")
def make(registry: Registry) -> Make:
    """Trains a checkpoint quickly."""

    def make(data: Dataset, model: str = "bias", holdout: str = "newest:0.2", **options: object) -> Checkpoint:
        request = Request(
            model,
            holdout,
            calibrated=False,
            reported=False,
            options=[f"{name}={value}" for name, value in options.items()],
        )
        return load(train(snapshot_of(data), registry, request).folder)

    return make


@pytest.fixture(scope="module")
def good(make: Make, data: Dataset) -> Checkpoint:
    """Knows how people and movies are rated."""
    return make(data, "bias")


@pytest.fixture(scope="module")
def bad(make: Make, data: Dataset) -> Checkpoint:
    """Guesses."""
    return make(data, "random")


def test_rows_are_later_than_what_either_was_trained_on(make: Make, data: Dataset, good: Checkpoint) -> None:
    """The later of the two ends counts, and all before it stands in the histories."""
    newer = make(data, holdout="newest:0.1")

    rows = find_later_rows(snapshot_of(data), good.manifest, newer.manifest)

    assert rows.later.event_times_ms.min() > newer.manifest.data_until_ms > good.manifest.data_until_ms
    assert len(rows.later) + len(rows.known) == 3000
    assert 250 < len(rows.later) <= 300
    assert rows.described.startswith(f"{len(rows.later):,} rows after 20")


def test_without_later_rows_nothing_is_compared(make: Make, data: Dataset, good: Checkpoint) -> None:
    """Rows that one has learnt from would flatter it; the message says what would work."""
    saw_all = make(data, holdout="none")

    with pytest.raises(PromotionError, match=r"0 rows of toy are after .*--holdout newest:0\.1"):
        find_later_rows(snapshot_of(data), saw_all.manifest, good.manifest)


def test_without_times_rows_that_both_held_out_are_compared_on(make: Make) -> None:
    """The same split of the same data; of other data nobody knows what was held out."""
    untimed = toy_dataset(num_users=200, timed=False)
    first, second = make(untimed, holdout="random:0.2"), make(untimed, "random", holdout="random:0.2")
    other = make(toy_dataset(num_users=200, timed=False, seed=1), holdout="random:0.2")

    rows = find_later_rows(snapshot_of(untimed), first.manifest, second.manifest)

    assert (len(rows.later), len(rows.known)) == (600, 2400)
    with pytest.raises(OtherDataError):
        find_later_rows(snapshot_of(untimed), other.manifest, first.manifest)


def test_a_checkpoint_of_untimed_data_has_no_end(make: Make, data: Dataset, good: Checkpoint) -> None:
    """Nothing can be later than it."""
    untimed = make(toy_dataset(num_users=200, timed=False), holdout="random:0.2")

    with pytest.raises(PromotionError, match="data without times"):
        find_later_rows(snapshot_of(data), untimed.manifest, good.manifest)


def test_the_better_one_passes_and_the_worse_one_does_not(data: Dataset, good: Checkpoint, bad: Checkpoint) -> None:
    """Judged on the same rows; the refusal has the figures."""
    rows = find_later_rows(snapshot_of(data), good.manifest, bad.manifest)

    better, worse = compare(good, bad, data, rows), compare(bad, good, data, rows)

    require_better(better)
    with pytest.raises(PromotionError, match=r"it is worse: rmse 2\.\d{4} against 1\."):
        require_better(worse)
    assert {each.metric for each in better} == {"rmse", "ndcg_at_10"}
    for one, other in zip(better, worse, strict=True):
        assert one.gain.difference == pytest.approx(-other.gain.difference)


def test_the_same_model_may_take_its_own_place(make: Make, data: Dataset, good: Checkpoint) -> None:
    """Trained again it is not worse, so a label can follow newer data."""
    again = make(data, "bias")
    rows = find_later_rows(snapshot_of(data), again.manifest, good.manifest)

    require_better(compare(again, good, data, rows))


def test_who_rates_nothing_is_no_successor_of_who_does(make: Make, data: Dataset, good: Checkpoint) -> None:
    """Half an answer is worse, whatever the lists are like."""
    rows = find_later_rows(snapshot_of(data), good.manifest, good.manifest)
    unrated = replace(data, scale=None, interactions=replace(data.interactions, ratings=np.full(3000, np.nan, "f")))
    ranker = make(unrated, "popular")

    with pytest.raises(PromotionError, match="predicts no ratings"):
        compare(ranker, good, data, LaterRows(rows.known, rows.later, "later"))


def test_a_smaller_catalogue_is_refused(make: Make, data: Dataset, good: Checkpoint) -> None:
    """Movies that were known would become COLD; some are named."""
    few = data.interactions.take(np.flatnonzero(data.interactions.movie_rows < 20))
    small = make(replace(data, interactions=few))

    with pytest.raises(PromotionError, match=r"knows 20 movies and .* 39: it lacks 'm20', 'm21', 'm22' and others"):
        require_all_movies(small, good)
    require_all_movies(good, small)
    require_all_movies(small, good, forgotten=[f"m{row}" for row in range(20, 39)])
    with pytest.raises(PromotionError, match=r"it lacks 'm38'"):
        require_all_movies(small, good, forgotten=[f"m{row}" for row in range(20, 38)])


def test_a_refit_learns_from_all_rows_with_the_same_settings(make: Make, data: Dataset, registry: Registry) -> None:
    """The label moves to it, so its manifest says what it was trained on and how."""
    label = registry.label("stable")
    chosen = make(data, "two-tower-history", epochs=2, target="unit")

    made = refit(snapshot_of(data), registry, chosen.manifest, "stable")

    assert (made.model, made.options, made.seed) == ("two-tower-history", chosen.manifest.options, 0)
    assert (made.trained_rows.holdout, made.trained_rows.count) == ("none", 3000)
    assert registry.label("stable") == label
