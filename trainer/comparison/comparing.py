"""Compares contenders: makes the tasks of every seed, has them run, and lays the cells beside each other.

Knows the order of these steps; knows no model by name and no form of a table.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from trainer.comparison.bootstrap import Interval, UserSums, paired_interval
from trainer.comparison.cell import Answers, Cell, Task
from trainer.comparison.code_version import code_of
from trainer.comparison.cold_start import divide_cold, is_cold_start, parse_cold_start
from trainer.comparison.contender import Contender, ContenderError
from trainer.comparison.judgement import METRICS, figures, user_sums
from trainer.comparison.runner import Failure, Outcome, Reading, Say, run_tasks
from trainer.errors import HoldoutError
from trainer.snapshot import Snapshot, divide, require_holdout


class UnequalRowsError(ContenderError):
    """Two contenders were not asked about the same rows."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What to compare.

    Attributes:
        contenders: Who.
        holdout: How rows are held out.
        seeds: Seeds of split and fit.
        reference: Name of the contender that the others are held against.
    """

    contenders: Sequence[Contender]
    holdout: str
    seeds: Sequence[int]
    reference: str


@dataclass(frozen=True, slots=True)
class Row:
    """One contender, over all of its seeds.

    Attributes:
        name: What it is called.
        figures: Metric → mean over seeds.
        spread: Metric → standard deviation over seeds, NaN for one seed.
        seeds: Those that were run.
        intervals: Metric → difference to the reference over the seeds that both have; empty for the reference itself.
        wall_s: Wall time of a fit, mean.
        cpu_s: Processor time of a fit, mean.
        size_bytes: Of a checkpoint, mean; None if it does not say.
        memory_mib: Peak, worst.
    """

    name: str
    figures: Mapping[str, float]
    spread: Mapping[str, float]
    seeds: tuple[int, ...]
    intervals: Mapping[str, Interval]
    wall_s: float
    cpu_s: float
    size_bytes: float | None
    memory_mib: float


@dataclass(frozen=True, slots=True)
class Comparison:
    """All rows on one data set and holdout.

    Attributes:
        data_name: What the data set is called.
        holdout: How rows were held out.
        reference: Which row the others are held against.
        rows: One for each contender with a cell, in the order asked.
        commits: Commits of the code that answered.
        cells: From which all of this comes.
        failures: What came to nothing.
        notes: One sentence each.
    """

    data_name: str
    holdout: str
    reference: str
    rows: Sequence[Row]
    commits: Sequence[str]
    cells: Sequence[Cell]
    failures: Sequence[Failure]
    notes: Sequence[str] = ()


def make_tasks(snapshot: Snapshot, plan: Plan) -> list[Task]:
    """Returns a task for every contender and seed.

    Raises:
        HoldoutError: The data cannot be divided that way.
        ContenderError: The reference is not among the contenders.
    """
    require_reference(plan.reference, plan.contenders)
    # What the data lacks for a holdout is said here, before anything is fitted.
    rows = {seed: hash_of_split(snapshot, plan.holdout, seed) for seed in plan.seeds}
    return [
        Task(contender, snapshot.data.name, snapshot.sha256, rows[seed], plan.holdout, seed, seed, code_of(contender))
        for seed in plan.seeds
        for contender in plan.contenders
    ]


def require_reference(reference: str, contenders: Sequence[Contender]) -> None:
    """Raises `ContenderError` if the reference is not among the contenders."""
    names = [contender.name for contender in contenders]
    if reference not in names:
        raise ContenderError(f"--reference {reference}: not among what is compared ({', '.join(names)})")


def require_rows_to_judge(holdout: str | None, source: str) -> None:
    """Refuses before minutes of reading what no data could be divided by; None lets the data decide.

    Raises:
        DataError: There is no such source.
        HoldoutError: The holdout is none of the forms, its file does not exist, or it holds nothing out.
    """
    if holdout is not None and is_cold_start(holdout):
        parse_cold_start(holdout)
        return
    require_holdout(holdout, source)
    if holdout == "none":
        raise HoldoutError("--holdout none: there is no row to be judged on; try random:0.1")


def hash_of_split(snapshot: Snapshot, holdout: str, seed: int) -> str:
    """Returns a hash over the rows that are learnt from and those that are judged.

    Raises:
        HoldoutError: The data cannot be divided that way, or nothing is held out.
    """
    if is_cold_start(holdout):
        cold = divide_cold(snapshot.data, parse_cold_start(holdout), seed)
        parts = [cold.train, cold.held_out, *cold.known.values()]
    else:
        divided = divide(snapshot, holdout, seed)
        if not len(divided.held_out):
            raise HoldoutError(f"--holdout {holdout}: there is no row to be judged on; try random:0.1")
        parts = [divided.train, divided.held_out]
    digest = hashlib.sha256()
    for rows in parts:
        digest.update(np.ascontiguousarray(rows.user_rows).tobytes() + rows.movie_rows.tobytes())
    return digest.hexdigest()


def compare(
    snapshot: Snapshot, reading: Reading, plan: Plan, work: Path, *, jobs: int, any_code: bool, say: Say
) -> Comparison:
    """Runs what is missing and lays everything side by side.

    Raises:
        TrainerError: The plan does not fit the data.
    """
    tasks = make_tasks(snapshot, plan)
    outcome = run_tasks(work, tasks, reading, jobs=jobs, any_code=any_code, say=say)
    return lay_out(plan, snapshot.data.name, outcome)


def lay_out(plan: Plan, data_name: str, outcome: Outcome, view: str | None = None) -> Comparison:
    """Lays cells side by side.

    Args:
        plan: Who is compared with whom.
        data_name: What the data set is called.
        outcome: The cells.
        view: Which answers of each cell; None takes the only ones.

    Raises:
        UnequalRowsError: Contenders were asked about different rows.
    """
    cells = {(cell.task.contender.name, cell.task.seed): cell for cell in outcome.cells}
    _require_equal_rows(outcome.cells)
    rows = [
        _row(contender.name, plan, cells, view)
        for contender in plan.contenders
        if any((contender.name, seed) in cells for seed in plan.seeds)
    ]
    notes = list(dict.fromkeys(note for cell in outcome.cells for note in cell.notes))
    commits = sorted({cell.commit or "unknown" for cell in outcome.cells})
    return Comparison(data_name, plan.holdout, plan.reference, rows, commits, outcome.cells, outcome.failures, notes)


def answers_of(cell: Cell, view: str | None) -> Answers:
    """Returns the answers of a view, or the first ones."""
    return cell.views[view] if view is not None else next(iter(cell.views.values()))


def _row(name: str, plan: Plan, cells: Mapping[tuple[str, int], Cell], view: str | None) -> Row:
    seeds = tuple(seed for seed in plan.seeds if (name, seed) in cells)
    own = [cells[name, seed] for seed in seeds]
    by_seed = [figures(answers_of(cell, view)) for cell in own]
    values = {metric.name: np.array([each[metric.name] for each in by_seed]) for metric in METRICS}
    sizes = [cell.costs.size_bytes for cell in own if cell.costs.size_bytes is not None]
    return Row(
        name,
        {metric: float(of_seeds.mean()) for metric, of_seeds in values.items()},
        {
            metric: float(of_seeds.std(ddof=1)) if len(of_seeds) > 1 else float("nan")
            for metric, of_seeds in values.items()
        },
        seeds,
        {} if name == plan.reference else _intervals(name, plan, cells, view),
        float(np.mean([cell.costs.wall_s for cell in own])),
        float(np.mean([cell.costs.cpu_s for cell in own])),
        float(np.mean(sizes)) if sizes else None,
        max(cell.costs.memory_mib for cell in own),
    )


def _intervals(name: str, plan: Plan, cells: Mapping[tuple[str, int], Cell], view: str | None) -> dict[str, Interval]:
    shared = [seed for seed in plan.seeds if (name, seed) in cells and (plan.reference, seed) in cells]
    found = {}
    for metric in METRICS:
        if not metric.is_paired or not shared:
            continue
        sides: list[list[UserSums]] = []
        for side in (name, plan.reference):
            sums = [user_sums(answers_of(cells[side, seed], view), metric.name) for seed in shared]
            sides.append([each for each in sums if each is not None])
        if len(sides[0]) == len(sides[1]) == len(shared):
            found[metric.name] = paired_interval(*sides)
    return found


def _require_equal_rows(cells: Sequence[Cell]) -> None:
    first: dict[tuple[int, str], Cell] = {}
    for cell in cells:
        for view, answers in cell.views.items():
            other = first.setdefault((cell.task.seed, view), cell)
            ours, theirs = answers.held_out, other.views[view].held_out
            if not (
                np.array_equal(ours.user_rows, theirs.user_rows)
                and np.array_equal(ours.movie_rows, theirs.movie_rows)
                and np.array_equal(ours.ratings, theirs.ratings, equal_nan=True)
            ):
                raise UnequalRowsError(
                    f"{cell.task.contender.name} and {other.task.contender.name} were asked about different rows "
                    f"with seed {cell.task.seed}; remove their cells and run them again"
                )
