"""What inspect says of a data set is what a reader finds in it, and the command that it shows can be run."""

import json
import shlex
from collections.abc import Callable
from dataclasses import astuple
from pathlib import Path

import pytest

from trainer.fits import FITS
from trainer.inspection import COSTS, inspect_data
from trainer.readers import ReadOptions
from trainer.readers.read_options import parse_columns
from trainer.synthesis import SynthesisPlan, write_synthetic


@pytest.fixture
def made(tmp_path: Path) -> Path:
    """A small synthetic folder."""
    write_synthetic(SynthesisPlan(40, 60, 900), tmp_path / "made")
    return tmp_path / "made"


def test_a_full_data_set_fits_every_model(made: Path) -> None:
    """Ratings, times, demographics and genres are all reported, and both models fit."""
    inspection = inspect_data(str(made), ReadOptions())

    facts = dict(inspection.facts)
    assert facts["ratings"].startswith("900 ")
    assert facts["scale"].startswith("0.5 to 5 in steps of 0.5, detected")
    assert facts["times"].startswith("seconds since 1970; 201")
    assert "gender of 100%" in facts["demographics"]
    assert "movies.csv" in facts["movies file"]
    assert [model.fits for model in inspection.models] == [True, True]
    assert all(model.minutes > 0 and model.memory_gib > 0 for model in inspection.models)
    assert not inspection.broken


def test_every_model_that_is_judged_can_be_trained() -> None:
    """The table names models to serve, not baselines; each of them exists."""
    assert set(COSTS) <= set(FITS)


def test_estimates_are_what_was_measured() -> None:
    """`python benchmarks/training_cost.py` measures, and prints what belongs into the code."""
    measured = json.loads(Path("benchmarks/results/training_cost.json").read_text(encoding="utf-8"))["figures"]

    for model, cost in COSTS.items():
        fitted = measured[f"{model}: non-negative fit"]
        assert astuple(cost) == tuple(value for terms in fitted.values() for value in terms.values())


def test_the_command_names_data_options_and_a_holdout_that_works(folder_of: Callable[..., Path]) -> None:
    """What was stated is repeated, and data without times gets a holdout that needs none."""
    folder = folder_of({"my views.csv": "uid,film\n1,a\n2,b\n"})
    words = ["--columns", "user=uid,movie=film"]

    inspection = inspect_data(str(folder), ReadOptions(columns=parse_columns(words[1])), words)

    assert inspection.recommended is not None
    typed = shlex.split(inspection.recommended.command)
    assert typed[:6] == ["python", "-m", "trainer", "train", "--data", str(folder)]
    assert typed[6:8] == words
    assert typed[-2:] == ["--holdout", "random:0.1"]


def test_data_without_ratings_does_not_fit_a_rating_model(folder_of: Callable[..., Path]) -> None:
    """The reason is given, and the model that ranks still fits."""
    inspection = inspect_data(str(folder_of({"views.csv": "user,movie\n1,a\n2,b\n"})), ReadOptions())

    fits = {model.model: model for model in inspection.models}
    assert not fits["two-tower-history"].fits
    assert "there are none" in fits["two-tower-history"].reason
    assert fits["marquee"].fits
    assert "top-k only" in fits["marquee"].reason


def test_broken_rows_are_listed(folder_of: Callable[..., Path]) -> None:
    """Each kind of broken row stands with its file, line and count."""
    rows = "".join(f"{n},a,{1 + n % 5}\n" for n in range(300))
    folder = folder_of({"views.csv": f"user,movie,rating\n{rows}7,b,x\n"})

    inspection = inspect_data(str(folder), ReadOptions())

    (line,) = inspection.broken
    assert "views.csv: 1 x rating is not a number" in line
    assert "line 302" in line
