"""The commands compare and coldstart, with real fits; one of them in a process of its own, as all are in earnest."""

import re
import sys
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import pytest

from tests.trainer.command_runs import run
from trainer.comparison import cell_process
from trainer.comparison.cell import RECORD, load
from trainer.comparison.comparing import Plan, lay_out, make_tasks
from trainer.comparison.contender import ContenderError, parse_contenders, parse_program
from trainer.comparison.runner import Failure, Outcome, Reading
from trainer.comparison.table import render
from trainer.errors import DataError
from trainer.readers.read_options import ReadOptions
from trainer.snapshot import take_snapshot
from trainer.synthesis.dataset_synthesis import SynthesisPlan
from trainer.synthesis.folder_writer import write_synthetic

PROGRAM = """
import sys, numpy as np
with np.load(sys.argv[1] + "/question.npz") as question:
    seen = set(zip(question["train_users"].tolist(), question["train_movies"].tolist()))
    lists = [
        [movie for movie in range(int(question["num_movies"])) if (user, movie) not in seen or {cheats}][:10]
        for user in question["list_users"].tolist()
    ]
    ratings = np.full(len(question["test_users"]), 9.0)
    said = {"wall_s": 1.5, "cpu_s": 2.5, "notes": ["nines: always 9"]}
    np.savez(sys.argv[1] + "/answer.npz", ratings=ratings, lists=lists, **said)
"""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a small synthetic data set."""
    folder = tmp_path_factory.mktemp("data")
    write_synthetic(SynthesisPlan(num_users=40, num_movies=100, num_ratings=1600), folder)
    return folder


def fill(work: Path, data: Path, plan: Plan) -> None:
    """Runs what a comparison would run, in this process: starting others takes longer than all the fits."""
    reading = {name: value for name, value in asdict(Reading(str(data))).items() if name != "source"}
    for task in make_tasks(take_snapshot(str(data), ReadOptions()), plan):
        cell_process.run(work, {"task": asdict(task), "source": str(data), "reading": reading})


@dataclass(frozen=True)
class Compared:
    """A comparison that has run."""

    out: Path
    arguments: tuple[object, ...]
    plan: Plan


@pytest.fixture(scope="module")
def compared(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Compared:
    """Two models and a program on one split."""
    folder = tmp_path_factory.mktemp("compared")
    (folder / "nines.py").write_text(PROGRAM.replace("{cheats}", "False"))
    program = f"nines={sys.executable} {folder / 'nines.py'}"
    plan = Plan([*parse_contenders("bias,mean"), parse_program(program)], "temporal:0.2", (0,), "bias")
    fill(folder / "table.cells", data, plan)
    arguments = ("compare", "--data", data, "--models", "bias,mean", "--reference", "bias", "--program", program)
    ran = run(*arguments, "--holdout", "temporal:0.2", "--out", folder / "table.md")
    assert ran.status == 0, ran.err
    return Compared(folder / "table.md", arguments, plan)


def test_the_table_has_a_row_for_each_and_a_plot(compared: Compared) -> None:
    """Figures, differences with intervals, what a program said, and the picture beside it."""
    text = compared.out.read_text()

    for name in ("bias", "mean", "nines"):
        assert re.search(rf"^\| `{name}` \|", text, re.MULTILINE)
    assert re.search(r"^\| `mean` \| \*{0,2}[+-]0\.\d{4} \[[+-]0\.\d{4}, [+-]0\.\d{4}\]", text, re.MULTILINE)
    assert "nines: always 9" in text
    assert "](table.svg)" in text
    assert compared.out.with_suffix(".svg").read_text().startswith("<?xml")


def test_a_cell_keeps_what_was_answered(compared: Compared) -> None:
    """A program's ratings before and after clipping, its times, and the size of a model."""
    folders = [record.parent for record in compared.out.with_suffix(".cells").glob(f"*/{RECORD}")]
    cells = {load(folder).task.contender.name: load(folder) for folder in folders}

    nines = cells["nines"].views["held_out"]
    assert set(nines.unclipped.tolist()) == {9}
    assert set(nines.predicted.tolist()) == {5}
    assert (cells["nines"].costs.wall_s, cells["nines"].costs.cpu_s) == (1.5, 2.5)
    assert cells["bias"].costs.size_bytes is not None


def test_movie_bags_are_read_where_the_fit_runs(data: Path, tmp_path: Path) -> None:
    """A process of its own reads the data again, and asks for the same columns."""
    (task,) = make_tasks(
        take_snapshot(str(data), ReadOptions()), Plan(parse_contenders("bias"), "temporal:0.2", (0,), "bias")
    )
    reading = asdict(Reading(str(data), movie_bags=("casting",)))

    with pytest.raises(DataError, match="no column for --movie-bag casting"):
        cell_process.run(tmp_path, {"task": asdict(task), "source": reading.pop("source"), "reading": reading})


def test_an_interrupted_comparison_goes_on_where_it_was(compared: Compared) -> None:
    """What is there is not run again; what is missing is, and the table comes out the same."""
    before = compared.out.read_text()
    (mean,) = compared.out.with_suffix(".cells").glob("*mean*/cell.json")
    mean.unlink()

    ran = run(*compared.arguments, "--holdout", "temporal:0.2", "--out", compared.out)

    assert "3 cells: 2 are there, 1 to run" in ran.out
    strip = re.compile(r"\| [\d.]+ \| [\d.]+ \| [\d.-]+ \| \d+ \|$|^- Held out by.*$", re.MULTILINE)
    assert strip.sub("", compared.out.read_text()) == strip.sub("", before)


def test_a_program_that_recommends_what_was_seen_is_refused(data: Path, tmp_path: Path) -> None:
    """Its lists would be judged on fewer places than the others'."""
    (tmp_path / "cheat.py").write_text(PROGRAM.replace("{cheats}", "True"))
    cheat = parse_program(f"cheat={sys.executable} {tmp_path / 'cheat.py'}")

    with pytest.raises(ContenderError, match="the user's own training rows"):
        fill(tmp_path, data, Plan([cheat], "random:0.1", (0,), "cheat"))


def test_what_came_to_nothing_stands_in_the_table_with_its_reason(compared: Compared) -> None:
    """The others stand."""
    cells = [load(record.parent) for record in compared.out.with_suffix(".cells").glob(f"*/{RECORD}")]
    (mean,) = (cell for cell in cells if cell.task.contender.name == "mean")
    failure = Failure(replace(mean.task, seed=3), "status -9, no output")

    text = render(lay_out(compared.plan, "data", Outcome([cell for cell in cells if cell != mean], [failure])))

    assert "`mean`, seed 3, came to nothing: status -9, no output" in text
    assert "| `nines` |" in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--models", "biass"), "no model 'biass'; the models are "),
        (("--models", "bias@x=1"), "no option 'x'"),
        (("--models", "bias"), "--reference marquee: not among what is compared (bias)"),
        (("--models", "bias", "--reference", "bias", "--holdout", "last"), "neither a file nor one of random:F"),
        (("--models", "bias", "--seeds", "x"), "--seeds 'x'"),
        (("--models", "bias", "--out", "table.html"), "ends in .md"),
        (("--models", "bias", "--reference", "bias", "--movie-bag", "casting"), "no column for --movie-bag casting"),
        (("--models", "bias", "--protocol", "notebook"), "no notebook of the models asked for used it"),
    ],
)
def test_what_cannot_be_compared_is_said_before_anything_runs(
    data: Path, tmp_path: Path, arguments: tuple[str, ...], message: str
) -> None:
    """In one message, with what would be right."""
    ran = run("compare", "--data", data, "--out", tmp_path / "t.md", *arguments)

    assert ran.status == 2
    assert message in ran.err
    assert not (tmp_path / "t.cells").exists()


def test_a_holdout_that_the_data_cannot_give_names_those_that_would_work(tmp_path: Path) -> None:
    """Without times nothing is later than another."""
    (tmp_path / "ratings.csv").write_text("userId,movieId,rating\n" + "".join(f"{n % 7},{n},3\n" for n in range(50)))

    ran = run(
        *("compare", "--data", tmp_path, "--models", "bias", "--reference", "bias"),
        *("--holdout", "temporal:0.1", "--out", tmp_path / "t.md"),
    )

    assert ran.status == 2
    assert "has no times" in ran.err
    assert "random:F, leave-last (a row of each user drawn at random), every:N and a file would work" in ran.err


def test_strangers_are_judged_by_how_much_is_known_of_them(data: Path, tmp_path: Path) -> None:
    """A column for each number of known ratings, and a table of new movies."""
    for holdout in ("new-users:0.3", "new-movies:0.05"):
        fill(tmp_path / "cold.cells", data, Plan(parse_contenders("bias"), holdout, (0,), "bias"))

    ran = run(
        *("coldstart", "--data", data, "--models", "bias", "--reference", "bias", "--users-share", 0.3),
        *("--out", tmp_path / "cold.md"),
    )

    assert ran.status == 0, ran.err
    text = (tmp_path / "cold.md").read_text()
    assert "| RMSE | 0 known | 1 known | 5 known | 20 known | all known |" in text
    assert "new movies (`new-movies:0.05`)" in text
