"""A training ends in a checkpoint that says which rows it saw, and that can be judged again on the others."""

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.toy_dataset import toy_dataset
from trainer.dataset import Dataset
from trainer.errors import HoldoutError
from trainer.evaluation import evaluate
from trainer.fits.options import OptionsError
from trainer.readers.read_options import ReadOptions
from trainer.snapshot import OtherDataError, Snapshot, divide, divide_again, hash_of_data, take_snapshot
from trainer.training import Request, train
from two_tower import checkpoint as checkpoints
from two_tower.errors import UnknownModelError
from two_tower.registry import Registry

QUICK = Request(model="two-tower-history", holdout="leave-last", seed=5, options=["epochs=2"])


def snapshot_of(data: Dataset, path: Path = Path("toy")) -> Snapshot:
    return Snapshot(data, path, hash_of_data(data), 1_600_000_000_000)


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    """A registry that does not exist yet."""
    return Registry(tmp_path / "registry")


def pairs(rows: object) -> set[tuple[int, int]]:
    return set(zip(rows.user_rows.tolist(), rows.movie_rows.tolist(), strict=True))  # type: ignore[attr-defined]


def test_the_manifest_says_what_was_done(registry: Registry) -> None:
    """Data, rows, times, scale, options, libraries and all four metrics with their protocol."""
    data = toy_dataset()
    before_ms = int(time.time() * 1000)

    outcome = train(snapshot_of(data), registry, QUICK)

    manifest = checkpoints.load(outcome.folder).manifest
    assert manifest == outcome.manifest
    assert (manifest.model, manifest.data_name, manifest.seed) == ("two-tower-history", "toy", 5)
    assert manifest.data_sha256 == hash_of_data(data)
    assert (manifest.trained_rows.holdout, manifest.trained_rows.seed) == ("leave-last", 5)
    assert manifest.trained_rows.count == 60 * 14
    parts = divide(snapshot_of(data), "leave-last", 5)
    assert manifest.data_until_ms == parts.train.event_times_ms.max()
    assert manifest.snapshot_time_ms == 1_600_000_000_000
    assert manifest.created_at_ms >= before_ms
    assert manifest.options["epochs"] == 2
    assert manifest.options["optimiser"] == "sgd"
    assert {"python", "torch", "numpy", "safetensors"} <= manifest.libraries.keys()
    assert manifest.rating_scale == data.scale
    metrics = manifest.metrics
    assert metrics.protocol == "leave-last"
    assert (metrics.num_ratings, metrics.num_users) == (60, 60)
    assert None not in (metrics.rmse, metrics.mae, metrics.ndcg_at_10, metrics.recall_at_10)


def test_the_same_rows_are_found_again(registry: Registry) -> None:
    """From the manifest alone, the split, and with the checkpoint the very metrics, come back."""
    snapshot = snapshot_of(toy_dataset())
    outcome = train(snapshot, registry, QUICK)
    loaded = checkpoints.load(outcome.folder)

    parts = divide_again(snapshot, loaded.manifest)
    again = evaluate(loaded.model, snapshot.data, parts.train, parts.held_out, protocol="leave-last")

    assert not pairs(parts.train) & pairs(parts.held_out)
    assert pairs(parts.train) | pairs(parts.held_out) == pairs(snapshot.data.interactions)
    assert again.metrics == outcome.manifest.metrics


def test_validation_rows_leave_the_test_rows_alone() -> None:
    """Judged on validation rows, nothing learns from a test row; judged on test rows, the others are learnt from."""
    snapshot = snapshot_of(toy_dataset())

    choosing, final = divide(snapshot, "leave-last", 0, "validation"), divide(snapshot, "leave-last", 0)

    assert not pairs(final.held_out) & (pairs(choosing.train) | pairs(choosing.held_out))
    assert pairs(final.train) == pairs(choosing.train) | pairs(choosing.held_out)
    with pytest.raises(HoldoutError, match="no validation rows; leave-last has"):
        divide(snapshot, "random:0.1", 0, "validation")


def test_a_checkpoint_judged_on_validation_rows_is_divided_again_that_way(registry: Registry) -> None:
    """The manifest knows which of the held-out rows were meant."""
    snapshot = snapshot_of(toy_dataset())
    outcome = train(snapshot, registry, replace(QUICK, judged_on="validation"))

    parts = divide_again(snapshot, outcome.manifest)

    assert parts.trained_rows == outcome.manifest.trained_rows
    assert outcome.manifest.metrics.protocol == "leave-last, judged on validation rows"
    assert len(parts.held_out) == 60


def test_other_data_is_refused(registry: Registry) -> None:
    """One rating that differs, and nothing is evaluated or published under this checkpoint's name."""
    data = toy_dataset()
    outcome = train(snapshot_of(data), registry, QUICK)
    ratings = data.interactions.ratings.copy()
    ratings[0] = 6 - ratings[0] if ratings[0] != 3 else 4
    other = replace(data, interactions=replace(data.interactions, ratings=ratings))

    with pytest.raises(OtherDataError, match="does not hold the data that checkpoint"):
        divide_again(snapshot_of(other), outcome.manifest)


def test_a_holdout_file_beside_the_data_is_found_and_must_stay_the_same(registry: Registry, tmp_path: Path) -> None:
    """u1.test of the data's own folder may be named without the folder."""
    data = toy_dataset()
    snapshot = snapshot_of(data, tmp_path)
    listed = data.interactions.take(np.arange(50))
    lines = [
        f"{data.user_ids[user]}\t{data.movies.movie_ids[movie]}\t{rating:g}\t{moment // 1000}"
        for user, movie, rating, moment in zip(
            listed.user_rows, listed.movie_rows, listed.ratings, listed.event_times_ms, strict=True
        )
    ]
    (tmp_path / "u1.test").write_text("\n".join(lines) + "\n")

    outcome = train(snapshot, registry, replace(QUICK, holdout="u1.test"))

    assert outcome.manifest.trained_rows.holdout == "u1.test"
    assert pairs(divide_again(snapshot, outcome.manifest).held_out) == pairs(listed)
    (tmp_path / "u1.test").write_text("\n".join(lines[:-1]) + "\n")
    with pytest.raises(OtherDataError, match="must be the one used in training"):
        divide_again(snapshot, outcome.manifest)


def test_only_the_first_checkpoint_gets_the_label(registry: Registry) -> None:
    """A later one has to be given it, so nothing is served by accident."""
    snapshot = snapshot_of(toy_dataset())

    first, second = train(snapshot, registry, QUICK), train(snapshot, registry, QUICK)

    assert first.labelled
    assert not second.labelled
    assert registry.label("stable") == first.manifest.version
    assert registry.versions() == sorted([first.manifest.version, second.manifest.version])


@pytest.mark.parametrize("timed", [True, False])
def test_the_default_holdout_suits_the_data(registry: Registry, timed: bool) -> None:
    """The latest tenth where there are times, a random tenth where there are none."""
    outcome = train(snapshot_of(toy_dataset(timed=timed)), registry, replace(QUICK, holdout=None))

    assert outcome.manifest.metrics.protocol == ("temporal:0.1" if timed else "random:0.1")
    assert outcome.manifest.has_times == timed
    assert (outcome.manifest.data_until_ms > 0) == timed


@pytest.mark.parametrize(
    ("request_", "error"),
    [
        (replace(QUICK, model="oracle"), UnknownModelError),
        (replace(QUICK, options=["epoch=1"]), OptionsError),
        (replace(QUICK, holdout="sometimes"), HoldoutError),
    ],
)
def test_a_request_that_cannot_be_met_leaves_no_checkpoint(
    registry: Registry, request_: Request, error: type[Exception]
) -> None:
    """Nothing is written before everything has worked."""
    with pytest.raises(error):
        train(snapshot_of(toy_dataset()), registry, request_)

    assert registry.versions() == []
    assert registry.label("stable") is None


def test_data_without_ratings_is_judged_by_its_lists_alone(registry: Registry) -> None:
    """Who only knows what was watched gets a checkpoint that ranks, and no metric is made up."""
    request = Request(model="marquee", options=["ranking_epochs=1", "ranking_cuts=2"])

    manifest = train(snapshot_of(toy_dataset(rated=False)), registry, request).manifest

    assert manifest.rating_scale is None
    assert (manifest.metrics.rmse, manifest.metrics.mae, manifest.metrics.num_ratings) == (None, None, 0)
    assert manifest.metrics.ndcg_at_10 is not None


def test_an_official_split_of_real_data(registry: Registry, real_data: Callable[[str], Path]) -> None:
    """u1 of MovieLens 100K: 80,000 rows to learn from, and one pass of the notebook's settings beats their mean."""
    snapshot = take_snapshot(str(real_data("ml-100k")), ReadOptions())

    outcome = train(snapshot, registry, Request(model="two-tower-history", holdout="u1.test"))

    held_out = outcome.evaluation.held_out.ratings
    assert outcome.manifest.trained_rows.count == 80_000
    assert outcome.manifest.metrics.rmse is not None
    assert outcome.manifest.metrics.rmse < 0.97 * held_out.std()
