"""Runs the tasks whose cells are not there yet, each in a process of its own. Knows processes; judges nothing."""

import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from trainer.comparison.cell import LOG, Cell, Task, find_of_other_code, is_done, load
from trainer.comparison.judgement import figures

Say = Callable[[str], None]

_LAST_LINES = 3


@dataclass(frozen=True, slots=True)
class Reading:
    """How the data is read, as on a command line; a process of its own reads it again.

    Attributes:
        source: `--data`.
        columns: `--columns`.
        users: `--users`.
        movies: `--movies`.
        scale: `--scale`.
        max_broken: `--max-broken`.
        movie_bags: `--movie-bag`, as often as it was given.
    """

    source: str
    columns: str = ""
    users: str = ""
    movies: str = ""
    scale: str = ""
    max_broken: float = 0.01
    movie_bags: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Failure:
    """A task that came to nothing.

    Attributes:
        task: What was run.
        reason: The last lines of its log.
    """

    task: Task
    reason: str


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of all tasks.

    Attributes:
        cells: Those that are there, in the order of the tasks.
        failures: The others.
    """

    cells: Sequence[Cell]
    failures: Sequence[Failure]


def run_tasks(
    work: Path,
    tasks: Sequence[Task],
    reading: Reading,
    *,
    jobs: int = 1,
    any_code: bool = False,
    until_s: float = math.inf,
    say: Say = print,
) -> Outcome:
    """Runs what is missing and returns all cells.

    Args:
        work: The folder of cells.
        tasks: What to run; one that is there is not run again.
        reading: How the data is read.
        jobs: How many processes at once.
        any_code: Take a cell that other code made, where there is none of this code.
        until_s: Point of `time.monotonic` after which nothing is started any more.
        say: Told a line before and after each task.
    """
    folders = {task: _find(work, task, any_code) for task in tasks}
    missing = [task for task in tasks if folders[task] is None]
    say(f"{len(tasks)} cells: {len(tasks) - len(missing)} are there, {len(missing)} to run, {jobs} at a time")
    failures: dict[Task, Failure] = {}
    started_s = time.monotonic()
    with ThreadPoolExecutor(jobs) as pool:
        running = {pool.submit(_run, work, task, reading, until_s): task for task in missing}
        try:
            for done, future in enumerate(as_completed(running), 1):
                task = running[future]
                elapsed_s = time.monotonic() - started_s
                left = f"about {elapsed_s / done * (len(missing) - done) / 60:.0f} min left"
                reason = future.result()
                if reason is None:
                    folders[task] = work / task.folder_name
                    say(f"[{done}/{len(missing)}] {_summary(load(work / task.folder_name))}; {left}")
                else:
                    failures[task] = Failure(task, reason)
                    say(f"[{done}/{len(missing)}] {task.contender.name}, seed {task.seed}: FAILED: {reason}; {left}")
        except BaseException:
            for future in running:
                future.cancel()
            raise
    cells = [load(folder) for folder in folders.values() if folder is not None]
    return Outcome(cells, [failures[task] for task in tasks if task in failures])


def _find(work: Path, task: Task, any_code: bool) -> Path | None:
    if is_done(work, task):
        return work / task.folder_name
    return find_of_other_code(work, task) if any_code else None


def _run(work: Path, task: Task, reading: Reading, until_s: float) -> str | None:
    """Runs one task and returns why it came to nothing, None if it did not."""
    if time.monotonic() > until_s:
        return "not run, for the time was up"
    folder = work / task.folder_name
    folder.mkdir(parents=True, exist_ok=True)
    request: Mapping[str, Any] = {
        "task": asdict(task),
        "source": reading.source,
        "reading": {name: value for name, value in asdict(reading).items() if name != "source"},
    }
    with (folder / LOG).open("wb") as log:
        ended = subprocess.run(
            [sys.executable, "-m", "trainer.comparison.cell_process", str(work)],
            input=json.dumps(request).encode(),
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
            check=False,
        )
    if ended.returncode == 0:
        return None
    lines = [line for line in (folder / LOG).read_text(errors="replace").splitlines() if line.strip()]
    return f"status {ended.returncode}, " + (" / ".join(lines[-_LAST_LINES:]) or "no output")


def _summary(cell: Cell) -> str:
    found = figures(next(iter(cell.views.values())))
    shown = ", ".join(f"{name} {found[name]:.4f}" for name in ("rmse", "ndcg") if found[name] == found[name])
    return f"{cell.task.contender.name}, seed {cell.task.seed}: {shown}, fit {cell.costs.wall_s:.0f} s"
