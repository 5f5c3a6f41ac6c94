"""Runs each notebook's models on its own data and split, as it was and with its bugs fixed, and marquee on those rows.

Knows what the notebooks reported and where they went wrong; knows no model's inside.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from trainer.comparison.cell import Cell, Task
from trainer.comparison.code_version import code_of
from trainer.comparison.comparing import hash_of_split
from trainer.comparison.contender import Contender, ContenderError
from trainer.comparison.judgement import METRIC_NAMED, figures
from trainer.comparison.own_genres import OWN_GENRES
from trainer.comparison.runner import Failure, Reading, Say, run_tasks
from trainer.comparison.table import NONE, markdown_table, number
from trainer.comparison.views import HELD_OUT, OWN_MAPS, SEEN_HISTORIES, TRAINING_ROWS
from trainer.fits import FITS
from trainer.snapshot import Snapshot

OURS = "marquee"


@dataclass(frozen=True, slots=True)
class Section:
    """One model of one notebook.

    Attributes:
        model: Its name here.
        data: Beginning of the names of the data sets that it was trained on.
        holdout: How it held rows out.
        metric: What it reported.
        reported: The figure, as it stands there; "" if there is none.
        as_it_was: Options that bring its bugs back.
        view: How it asked, where that was a bug.
        split_seed: Seed of its split, None where it had none.
        bug: What was wrong, in a few words.
    """

    model: str
    data: str
    holdout: str
    metric: str
    reported: str = ""
    as_it_was: tuple[str, ...] = ()
    view: str = HELD_OUT
    split_seed: int | None = None
    bug: str = ""


_OWN_MAPS = "the validation rows had id maps of their own"
_NAIVE = "judged on the training rows"

SECTIONS = (
    Section(
        "content-fc",
        "ml-100k",
        "torch:0.2",
        "mae",
        "0.867 (last epoch), 0.848 (best)",
        ("validation_share=0", "plateau_patience=10"),
        split_seed=1337,
        bug="the epoch was chosen on the rows it reports; a patience of 10 in 10 epochs",
    ),
    Section("mf-centred", "ml-latest-small", "random:0.1", "mse", bug="no rows held out"),
    Section("dot-bias", "ml-latest-small", "random:0.25", "mse", "about 1.7", ("margin=1",), OWN_MAPS, bug=_OWN_MAPS),
    Section(
        "dot-bias-genre",
        "ml-latest-small",
        "random:0.25",
        "mse",
        "above 2.0",
        ("margin=1", "padded_genres=true"),
        OWN_GENRES,
        bug=f"{_OWN_MAPS}, of genres too; padding was a real genre",
    ),
    Section(
        "nn-collab",
        "ml-latest-small",
        "random:0.25",
        "mse",
        "1.75",
        ("margin=1", "unknown_rate=0"),
        OWN_MAPS,
        bug=_OWN_MAPS,
    ),
    Section(
        "nn-collab-genre",
        "ml-latest-small",
        "random:0.25",
        "mse",
        "2.5",
        ("margin=1", "unknown_rate=0", "padded_genres=true"),
        OWN_GENRES,
        bug=f"{_OWN_MAPS}, of genres too; padding was a real genre, and those rows were padded less",
    ),
    Section("random", "ml-1m", "every:20", "rmse", "1.893", view=TRAINING_ROWS, split_seed=42, bug=_NAIVE),
    Section("weighted", "ml-1m", "every:20", "rmse", "1.579", view=TRAINING_ROWS, split_seed=42, bug=_NAIVE),
    Section("majority", "ml-1m", "every:20", "rmse", "1.193", view=TRAINING_ROWS, split_seed=42, bug=_NAIVE),
    Section("mean", "ml-1m", "every:20", "rmse", "1.117", view=TRAINING_ROWS, split_seed=42, bug=_NAIVE),
    Section(
        "tfrs-simple",
        "ml-1m",
        "every:20",
        "rmse",
        "0.976",
        # 203 rows are then left for the last batch, about the notebook's 198.
        ("stop_by=last-batch", "batch_size=9995"),
        bug="stopped by the loss of the last batch, which its library reports as the epoch's",
    ),
    Section(
        "tfrs-titles",
        "ml-1m",
        "every:20",
        "rmse",
        "",
        ("validation_share=0", "patience=0"),
        bug="early stopping watched a loss that was not there",
    ),
    Section(
        "two-tower-history",
        "ml-1m",
        "random:0.2",
        "mse",
        "1.0009",
        (),
        SEEN_HISTORIES,
        bug="histories held test rows",
    ),
)


@dataclass(frozen=True, slots=True)
class Line:
    """One row of the notebooks' table.

    Attributes:
        section: Which model.
        as_it_was: Its metric with the bugs, NaN if the run failed.
        fixed: Without.
        ours: marquee on the same rows.
        unclipped: Its unclipped RMSE without the bugs.
        num_seeds: Fits that each figure is the mean of.
        failures: What came to nothing.
    """

    section: Section
    as_it_was: float
    fixed: float
    ours: float
    unclipped: float
    num_seeds: int
    failures: tuple[Failure, ...] = ()


def compare_notebooks(
    snapshot: Snapshot,
    reading: Reading,
    contenders: Sequence[Contender],
    seeds: Sequence[int],
    holdout: str | None,
    work: Path,
    *,
    jobs: int,
    any_code: bool,
    say: Say,
    until_s: float = math.inf,
) -> list[Line]:
    """Runs the notebook models whose data this is.

    Raises:
        ContenderError: A holdout was given, or no notebook used this data.
        HoldoutError: The data cannot be divided as the notebook did.
    """
    name = snapshot.data.name
    require_own_splits(holdout)
    asked = {contender.model for contender in contenders}
    sections = [each for each in SECTIONS if name.startswith(each.data) and each.model in asked and each.model in FITS]
    if not sections:
        known = "; ".join(f"{each.model}: {each.data}" for each in SECTIONS)
        raise ContenderError(f"--data {name}: no notebook of the models asked for used it. They are {known}")
    splits = {(section.holdout, _split_seed(section, seed)) for section in sections for seed in seeds}
    rows = {(form, seed): hash_of_split(snapshot, form, seed) for form, seed in splits}
    tasks = {section: _tasks(snapshot, section, seeds, rows) for section in sections}
    every = list(dict.fromkeys(task for triples in tasks.values() for triple in triples for task in triple))
    outcome = run_tasks(work, every, reading, jobs=jobs, any_code=any_code, until_s=until_s, say=say)
    cells = {replace(cell.task, code_sha256=""): cell for cell in outcome.cells}
    failures = {failure.task: failure for failure in outcome.failures}
    return [_line(section, triples, cells, failures) for section, triples in tasks.items()]


def require_own_splits(holdout: str | None) -> None:
    """Raises `ContenderError` if a holdout was given."""
    if holdout is not None:
        raise ContenderError(f"--holdout {holdout}: with --protocol notebook each notebook's own split is taken")


_Triple = tuple[Task, Task, Task]


def _split_seed(section: Section, seed: int) -> int:
    return seed if section.split_seed is None else section.split_seed


def _tasks(
    snapshot: Snapshot, section: Section, seeds: Sequence[int], rows: Mapping[tuple[str, int], str]
) -> list[_Triple]:
    """Returns for each seed: as it was, fixed, marquee."""
    found = []
    for seed in seeds:
        split_seed = _split_seed(section, seed)
        views = (HELD_OUT,) if section.view == HELD_OUT else (HELD_OUT, section.view)

        def task(contender: Contender, views: tuple[str, ...], split_seed: int = split_seed, seed: int = seed) -> Task:
            return Task(
                contender,
                snapshot.data.name,
                snapshot.sha256,
                rows[section.holdout, split_seed],
                section.holdout,
                split_seed,
                seed,
                code_of(contender),
                views,
            )

        buggy = Contender("@".join((section.model, *section.as_it_was)), section.model, section.as_it_was)
        fixed = Contender(section.model, section.model)
        # With the same options one fit is asked in both ways.
        found.append(
            (
                task(buggy, views),
                task(fixed, views if buggy == fixed else (HELD_OUT,)),
                task(Contender(OURS, OURS), (HELD_OUT,)),
            )
        )
    return found


def _line(section: Section, triples: Sequence[_Triple], cells: dict[Task, Cell], failures: dict[Task, Failure]) -> Line:
    def mean(place: int, view: str, metric: str) -> float:
        values = []
        for triple in triples:
            cell = cells.get(replace(triple[place], code_sha256=""))
            values.append(float("nan") if cell is None else figures(cell.views[view])[metric])
        return sum(values) / len(values)

    return Line(
        section,
        mean(0, section.view, section.metric),
        mean(1, HELD_OUT, section.metric),
        mean(2, HELD_OUT, section.metric),
        mean(1, HELD_OUT, "unclipped_rmse"),
        len(triples),
        tuple(failures[task] for triple in triples for task in triple if task in failures),
    )


def render_notebooks(data_name: str, lines: Sequence[Line]) -> str:
    """Returns the table: reported, as it was, bugs fixed, marquee."""
    header = ["model", "split", "metric", "reported", "as it was", "bugs fixed", OURS, "unclipped RMSE", "bug"]
    rows = [
        [
            f"`{line.section.model}`",
            f"`{line.section.holdout}`",
            METRIC_NAMED[line.section.metric].title,
            line.section.reported or NONE,
            number(line.as_it_was, 4),
            number(line.fixed, 4),
            number(line.ours, 4),
            number(line.unclipped, 4),
            line.section.bug or NONE,
        ]
        for line in lines
    ]
    notes = [f"Mean of {lines[0].num_seeds} fits; clipped but for the last figure." if lines else ""]
    notes += [
        f"`{failure.task.contender.name}`, seed {failure.task.seed}, came to nothing: {failure.reason}"
        for line in lines
        for failure in line.failures
    ]
    return (
        f"### The notebooks on {data_name}\n\n"
        + markdown_table(header, rows)
        + "\n\n"
        + "\n".join(f"- {note}" for note in notes)
        + "\n"
    )
