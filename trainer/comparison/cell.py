"""Keeps what one contender answered on one split: the cell from which tables are built. Knows files, judges nothing.

    WORK/<name>-<hash of the task>/
        cell.json          the task, and what the run took
        <view>.npz         the answers; one view, or several where one fit is asked in several ways
        log.txt            what the process printed

A cell is written aside and renamed, so one that is there is whole, and a comparison that was interrupted goes on where
it was. Tables are built from cells alone.
"""

import hashlib
import json
import re
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainer.comparison.contender import Contender
from trainer.comparison.views import HELD_OUT
from trainer.dataset import Interactions
from trainer.evaluation import Evaluation

RECORD = "cell.json"
LOG = "log.txt"


@dataclass(frozen=True, slots=True)
class Task:
    """What to run. Everything that can change an answer is in here.

    Attributes:
        contender: Who answers.
        data_name: What the data set is called.
        data_sha256: Hash of the data set.
        rows_sha256: Hash of the rows to learn from and of those held out.
        holdout: How rows are held out: as on a command line, or a way of cold start.
        split_seed: Seed of the split.
        seed: Seed of the fit.
        code_sha256: Hash of the code that answers.
        views: How the model is asked (trainer/comparison/views.py); a cold start has its own.
    """

    contender: Contender
    data_name: str
    data_sha256: str
    rows_sha256: str
    holdout: str
    split_seed: int
    seed: int
    code_sha256: str
    views: tuple[str, ...] = (HELD_OUT,)

    @property
    def folder_name(self) -> str:
        """Returns where the cell lies: readable, and unique by all that can change an answer."""
        digest = hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()
        readable = f"{self.data_name}-{Path(self.holdout).name}-{self.contender.name}-{self.seed}"
        return f"{re.sub('[^A-Za-z0-9.=_-]+', '_', readable)[:120]}-{digest[:12]}"

    def is_of_other_code(self, other: "Task") -> bool:
        """Tells whether two tasks differ by their code at most."""
        return all(
            getattr(self, each.name) == getattr(other, each.name) for each in fields(self) if each.name != "code_sha256"
        )


@dataclass(frozen=True, slots=True)
class Costs:
    """What a run took.

    Attributes:
        wall_s: Wall time of the fit alone.
        cpu_s: Processor time of the fit alone, over all threads.
        size_bytes: Weights and vocabularies as a checkpoint holds them; None for a program that does not say.
        memory_mib: Peak resident memory of the process, reading and judging included.
    """

    wall_s: float
    cpu_s: float
    size_bytes: int | None
    memory_mib: float


@dataclass(frozen=True, slots=True)
class Answers:
    """What a contender said of held-out rows.

    Attributes:
        held_out: The rows.
        predicted: Ratings, clipped to the scale, NaN where there is none. float32 [n]
        unclipped: The same before clipping. float32 [n]
        deviations: Its own standard deviation of each, NaN where it does not say. float32 [n]
        num_known: Ratings of the user that each answer rests on. int64 [n]
        users: Users with held-out rows, ascending. int32 [B]
        lists: Their best unseen movies by catalogue number, padded with -1; all -1 if it cannot rank. int64 [B, k]
        num_movies: Length of the catalogue.
    """

    held_out: Interactions
    predicted: NDArray[np.float32]
    unclipped: NDArray[np.float32]
    deviations: NDArray[np.float32]
    num_known: NDArray[np.int64]
    users: NDArray[np.int32]
    lists: NDArray[np.int64]
    num_movies: int

    @classmethod
    def of(cls, evaluation: Evaluation, num_movies: int) -> "Answers":
        """Takes over what an evaluation found."""
        return cls(
            evaluation.held_out,
            evaluation.predicted,
            evaluation.unclipped,
            evaluation.deviations,
            evaluation.num_known,
            evaluation.users,
            evaluation.lists,
            num_movies,
        )


@dataclass(frozen=True, slots=True)
class Cell:
    """One contender on one split.

    Attributes:
        task: What was run.
        costs: What it took.
        commit: The commit of the code, None if that is not known.
        views: Answers by name; "held_out" where there is one way to ask only.
        notes: What was decided on the way, one sentence each.
    """

    task: Task
    costs: Costs
    commit: str | None
    views: Mapping[str, Answers]
    notes: tuple[str, ...] = field(default=())


def is_done(work: Path, task: Task) -> bool:
    """Tells whether the cell of a task is there."""
    return (work / task.folder_name / RECORD).is_file()


def store(work: Path, cell: Cell) -> Path:
    """Writes a cell and returns its folder; one that is there already is replaced."""
    folder = work / cell.task.folder_name
    aside = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    for name, answers in cell.views.items():
        _write_answers(aside / f"{name}.npz", answers)
    record = {
        "task": asdict(cell.task),
        "costs": asdict(cell.costs),
        "commit": cell.commit,
        "views": list(cell.views),
        "notes": list(cell.notes),
    }
    (aside / RECORD).write_text(json.dumps(record, indent=1))
    if (folder / LOG).is_file():
        shutil.move(folder / LOG, aside / LOG)
    shutil.rmtree(folder, ignore_errors=True)
    aside.rename(folder)
    return folder


def load(folder: Path) -> Cell:
    """Reads a cell."""
    record = json.loads((folder / RECORD).read_text())
    views = {name: _read_answers(folder / f"{name}.npz") for name in record["views"]}
    return Cell(parse_task(record["task"]), Costs(**record["costs"]), record["commit"], views, tuple(record["notes"]))


def parse_task(record: Mapping[str, Any]) -> Task:
    """Reads the JSON form of a task."""
    contender = record["contender"]
    return Task(
        **{
            **record,
            "contender": Contender(
                contender["name"], contender["model"], tuple(contender["options"]), tuple(contender["command"])
            ),
            "views": tuple(record["views"]),
        }
    )


def find_of_other_code(work: Path, task: Task) -> Path | None:
    """Returns the newest cell that differs from a task by its code only."""
    found = [
        record.parent
        for record in work.glob(f"*/{RECORD}")
        if parse_task(json.loads(record.read_text())["task"]).is_of_other_code(task)
    ]
    return max(found, key=lambda folder: (folder / RECORD).stat().st_mtime, default=None)


def _write_answers(path: Path, answers: Answers) -> None:
    rows = answers.held_out
    np.savez_compressed(
        path,
        user_rows=rows.user_rows,
        movie_rows=rows.movie_rows,
        ratings=rows.ratings,
        event_times_ms=rows.event_times_ms,
        predicted=answers.predicted,
        unclipped=answers.unclipped,
        deviations=answers.deviations,
        num_known=answers.num_known,
        users=answers.users,
        lists=answers.lists,
        num_movies=answers.num_movies,
    )


def _read_answers(path: Path) -> Answers:
    with np.load(path, allow_pickle=False) as file:
        rows = Interactions(file["user_rows"], file["movie_rows"], file["ratings"], file["event_times_ms"])
        return Answers(
            rows,
            file["predicted"],
            file["unclipped"],
            file["deviations"],
            file["num_known"],
            file["users"],
            file["lists"],
            int(file["num_movies"]),
        )
