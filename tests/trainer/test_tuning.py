"""A search never sees a test row, keeps what it found, and goes on where it was stopped."""

from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from tests.toy_dataset import toy_dataset
from trainer.commands.app import make_app
from trainer.dataset import Interactions
from trainer.errors import HoldoutError
from trainer.fits import FITS, fit_function
from trainer.fits.options import OptionsError, parse_options
from trainer.search_space import Choice, Range, search_space
from trainer.snapshot import Snapshot, divide, hash_of_data
from trainer.synthesis.dataset_synthesis import SynthesisPlan
from trainer.synthesis.folder_writer import write_synthetic
from trainer.tuning import Search, TuningError, tune, without_test_rows

DAMPING = {"user_damping": Range(0.5, 500.0, log=True)}


def pairs(rows: Interactions) -> set[tuple[int, int]]:
    return set(zip(rows.user_rows.tolist(), rows.movie_rows.tolist(), strict=True))


@pytest.fixture(scope="module")
def snapshot() -> Snapshot:
    """900 rows."""
    data = toy_dataset()
    return Snapshot(data, Path("toy"), hash_of_data(data), 0)


@pytest.mark.parametrize("holdout", ["random:0.2", "temporal:0.2", "newest:0.2", "leave-last", "every:5"])
def test_no_test_row_is_trained_on_or_judged_by(snapshot: Snapshot, holdout: str) -> None:
    """What the search gets is the data without the test rows, divided once more."""
    test = pairs(divide(snapshot, holdout, 3).held_out)

    data, parts = without_test_rows(snapshot, holdout, 3)

    assert not test & pairs(data.interactions)
    assert not pairs(parts.train) & pairs(parts.test)
    assert pairs(parts.train) | pairs(parts.test) | test == pairs(snapshot.data.interactions)


def test_leave_last_judges_by_the_validation_rows(snapshot: Snapshot) -> None:
    """The row before the last is what `--judge-on validation` means, too."""
    _, parts = without_test_rows(snapshot, "leave-last", 0)

    assert pairs(parts.test) == pairs(divide(snapshot, "leave-last", 0, "validation").held_out)


def test_a_holdout_that_leaves_no_test_is_refused(snapshot: Snapshot) -> None:
    """Who tunes on everything has nothing to report."""
    with pytest.raises(HoldoutError, match="nothing would be left for a test"):
        without_test_rows(snapshot, "none", 0)


def test_a_search_goes_on_where_it_was_stopped(snapshot: Snapshot, tmp_path: Path) -> None:
    """Three trials, then five in all: two are made, the first three stay; five again make none."""
    storage = tmp_path / "trials.db"
    made: list[str] = []

    def search(trials: int) -> object:
        made.clear()
        wanted = Search("bias", DAMPING, trials=trials, holdout="random:0.2", storage=storage)
        return tune(snapshot, wanted, lambda done, total, message, figures=None: made.append(message.split(":")[0]))

    first = search(3)
    assert len(set(made)) == 3
    second = search(5)
    assert set(made) == {"trial 4", "trial 5"}
    third = search(5)

    assert made == []
    assert third == second
    assert second.value <= first.value  # type: ignore[attr-defined]
    assert second.trials == 5  # type: ignore[attr-defined]


def test_the_defaults_are_tried_first(snapshot: Snapshot) -> None:
    """So the best is never worse than they are."""
    found = tune(snapshot, Search("bias", DAMPING, trials=4, holdout="random:0.2"))

    assert found.default_value is not None
    assert found.value <= found.default_value
    (best,) = found.options
    parse_options(fit_function("bias").options_class, [best])


def test_other_data_is_another_search(snapshot: Snapshot, tmp_path: Path) -> None:
    """Trials of one data set say nothing of another, though they lie in the same file."""
    other = toy_dataset(seed=1)
    storage = tmp_path / "trials.db"
    wanted = Search("bias", DAMPING, trials=2, holdout="random:0.2", storage=storage)

    first, second = tune(snapshot, wanted), tune(Snapshot(other, Path("toy"), hash_of_data(other), 0), wanted)

    assert (first.trials, second.trials) == (2, 2)
    assert first.default_value != second.default_value


def test_a_time_limit_ends_it(snapshot: Snapshot) -> None:
    """The trial that runs is finished, no other begins."""
    found = tune(snapshot, Search("bias", DAMPING, trials=1000, timeout_s=0.01, holdout="random:0.2"))

    assert 1 <= found.trials < 100


def test_what_is_no_file_of_trials_is_refused(snapshot: Snapshot, tmp_path: Path) -> None:
    """One sentence instead of the database's."""
    (tmp_path / "notes.txt").write_text("not a database, but long enough to be looked at as one " * 20)

    for storage in (tmp_path / "notes.txt", tmp_path / "nowhere" / "trials.db"):
        with pytest.raises(TuningError, match="--storage"):
            tune(snapshot, Search("bias", DAMPING, trials=1, storage=storage))


def test_a_metric_that_the_data_cannot_have_is_refused() -> None:
    """Without ratings there is no rmse."""
    data = toy_dataset(rated=False)

    with pytest.raises(TuningError, match="--metric ndcg"):
        tune(Snapshot(data, Path("toy"), hash_of_data(data), 0), Search("popular", DAMPING))


@pytest.mark.parametrize("model", sorted(FITS))
def test_what_is_searched_are_options_of_the_model(model: str) -> None:
    """Every suggested or derived range lies within what the option allows."""
    kind = fit_function(model).options_class

    for name, each in search_space(model, kind).items():
        ends = each.values if isinstance(each, Choice) else (each.low, each.high)
        for end in ends:
            parse_options(kind, [f"{name}={int(np.ceil(end)) if isinstance(each, Range) and each.whole else end}"])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("epochs=1:5", Range(1, 5, whole=True)),
        ("learning-rate=0.001:0.1:log", Range(0.001, 0.1, log=True)),
        ("optimiser=sgd,adam", Choice(("sgd", "adam"))),
        ("layers=1,2", Choice((1, 2))),
        ("normalised=true,false", Choice((True, False))),
        ("batch_size=32,64,128", Choice((32, 64, 128))),
    ],
)
def test_a_person_may_say_what_to_search(text: str, expected: object) -> None:
    """A range, or some values."""
    kind = fit_function("two-tower-history").options_class
    (found,) = search_space("two-tower-history", kind, [text]).values()

    assert found == expected


@pytest.mark.parametrize(
    "text",
    [
        "epochs",
        "epoch=1:2",
        "epochs=0:5",
        "epochs=5:1",
        "epochs=1:x",
        "momentum=0:0.5:log",
        "optimiser=sgd,x",
        "epochs=3",
    ],
)
def test_a_search_that_cannot_be_is_refused(text: str) -> None:
    """With what would be right."""
    with pytest.raises(OptionsError, match="should be OPTION=LOW:HIGH"):
        search_space("two-tower-history", fit_function("two-tower-history").options_class, [text])


def test_the_command_prints_how_to_train_with_the_best(tmp_path: Path) -> None:
    """A line to copy, with the holdout and the seed of the search."""
    write_synthetic(SynthesisPlan(num_users=60, num_movies=80, num_ratings=1500), tmp_path / "data")

    ran = CliRunner(env={"COLUMNS": "200", "TERM": "dumb"}).invoke(
        make_app(), ["tune", "bias", "--data", str(tmp_path / "data"), "--trials", "2", "--seed", "4"]
    )

    assert ran.exit_code == 0, ran.output
    assert "The test rows were not looked at" in ran.stdout
    assert "train --model bias" in ran.stdout
    assert "--holdout temporal:0.1 --seed 4 --set " in ran.stdout
