"""A model that cannot tell how sure it is gets a table of its errors, made on rows that it had not seen then."""

from pathlib import Path

import numpy as np
import pytest

from tests.toy_dataset import toy_dataset
from trainer.calibration import COUNTS, MIN_ERRORS, NORMAL_80, calibrate, spread_of
from trainer.cold_start import evaluate_strangers
from trainer.dataset import Dataset, Interactions
from trainer.evaluation import Evaluation, evaluate
from trainer.fits import fit_function, silent
from trainer.snapshot import Snapshot, hash_of_data
from trainer.training import Request, train
from two_tower.manifest import Metrics
from two_tower.registry import Registry


@pytest.fixture(scope="module")
def data() -> Dataset:
    """Enough rows for a table."""
    return toy_dataset(num_users=200)


def evaluation_of(errors: np.ndarray, num_known: np.ndarray) -> Evaluation:
    """An evaluation in which every rating was 3 stars and the predictions err by so much."""
    n = len(errors)
    rows = Interactions(
        np.zeros(n, np.int32), np.arange(n, dtype=np.int32), np.full(n, 3, np.float32), np.zeros(n, int)
    )
    predicted = (3 + errors).astype(np.float32)
    metrics = Metrics(rmse=None, mae=None, ndcg_at_10=None, recall_at_10=None, protocol="", num_ratings=n, num_users=1)
    lists = np.full((1, 10), -1, np.int64)
    nothing = np.full(n, np.nan, np.float32)
    return Evaluation(metrics, rows, predicted, np.zeros(1, np.int32), lists, predicted, nothing, num_known)


def test_intervals_hold_four_fifths_of_the_errors_at_every_count() -> None:
    """Errors of spread 2 without ratings, 1 with one and 0.5 with many come back as those deviations."""
    rng = np.random.default_rng(0)
    num_known = np.repeat([0, 1, 600], 5_000)
    errors = rng.normal(0, np.repeat([2.0, 1.0, 0.5], 5_000))

    spread = spread_of([evaluation_of(errors, num_known)])

    assert spread is not None
    assert spread.counts == (0, 1, 512)
    assert spread.deviations == pytest.approx((2.0, 1.0, 0.5), rel=0.05)
    inside = np.abs(errors) <= NORMAL_80 * spread.deviations_of(num_known)
    for count in (0, 1, 600):
        assert inside[num_known == count].mean() == pytest.approx(0.8, abs=0.005)


def test_counts_with_few_errors_share_a_row() -> None:
    """No row of the table rests on a handful of errors, and together they hold all of them."""
    rng = np.random.default_rng(0)
    num_known = np.concatenate([np.arange(100), np.full(500, 40)])

    spread = spread_of([evaluation_of(rng.normal(0, 1, 600), num_known)])

    assert spread is not None
    assert spread.counts[0] == 0
    assert set(spread.counts) < set(COUNTS)
    assert len(spread.counts) < 3


def test_strangers_speak_for_counts_that_too_few_users_have() -> None:
    """Whoever is known by id errs otherwise than a stranger with as many ratings, so his own errors go first."""
    rng = np.random.default_rng(0)
    acquainted = evaluation_of(rng.normal(0, 0.5, 1000), np.full(1000, 16))
    strangers = evaluation_of(rng.normal(0, 2.0, 2000), np.repeat([0, 16], 1000))

    spread = spread_of([acquainted], [strangers])

    assert spread is not None
    assert spread.counts == (0, 16)
    assert spread.deviations == pytest.approx((2.0, 0.5), rel=0.1)


def test_a_few_errors_make_no_table() -> None:
    """Nothing is made up where nothing was measured, and rows without a rating count for nothing."""
    errors = np.where(np.arange(MIN_ERRORS) > 0, 1.0, np.nan)

    assert spread_of([evaluation_of(errors, np.zeros(MIN_ERRORS, np.int64))]) is None


def test_the_clone_never_sees_what_it_is_judged_on(data: Dataset) -> None:
    """The rows held out are missing from the fit, and the options and seed are those of the training."""
    made = fit_function("two-tower-history")
    seen: list[tuple[int, object, int]] = []

    def fit(fitted_to: Dataset, options: object, *, seed: int, progress: object) -> object:
        seen.append((len(fitted_to.interactions), options, seed))
        return made.fit(fitted_to, options, seed=seed, progress=silent)

    options = made.options_class(epochs=2)
    spread = calibrate(fit, data, data.interactions, options, seed=7, progress=silent)  # type: ignore[arg-type]

    assert seen == [(3000 - 400, options, 7)]
    assert spread is not None
    assert all(0.3 < deviation < 4 for deviation in spread.deviations)


def test_strangers_are_asked_about_without_their_id_and_older_events(data: Dataset) -> None:
    """What is known of them is counted, and a model that knows users by id answers otherwise than for them."""
    made = fit_function("two-tower-history")
    rows = data.interactions
    held_out, train_rows = rows.take(np.arange(300)), rows.take(np.arange(300, len(rows)))
    model = made.fit(data, made.options_class(), seed=0, progress=silent)

    told = evaluate_strangers(model, data, train_rows, held_out, 2, max_users=50, rng=np.random.default_rng(0))

    assert told is not None
    assert len(told.users) == 50
    assert set(told.num_known) == {2}
    known = evaluate(model, data, train_rows, told.held_out, protocol="")
    assert not np.allclose(known.predicted, told.predicted, atol=1e-3)


def test_nobody_has_watched_more_than_there_is(data: Dataset) -> None:
    """A level that no user reaches is left out, not filled up."""
    made = fit_function("two-tower-history")
    rows = data.interactions
    model = made.fit(data, made.options_class(), seed=0, progress=silent)

    assert (
        evaluate_strangers(model, data, rows, rows.take(np.arange(5)), 16, max_users=50, rng=np.random.default_rng(0))
        is None
    )


@pytest.mark.parametrize("calibrated", [True, False])
def test_a_training_writes_the_table_if_it_is_wanted(data: Dataset, tmp_path: Path, calibrated: bool) -> None:
    """--no-calibrate leaves the field out."""
    snapshot = Snapshot(data, tmp_path, hash_of_data(data), 0)
    request = Request(model="two-tower-history", calibrated=calibrated)

    manifest = train(snapshot, Registry(tmp_path), request).manifest

    assert (manifest.rating_spread is not None) == calibrated
