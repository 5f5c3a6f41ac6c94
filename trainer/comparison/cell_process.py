"""Runs one task in a process of its own: `python -m trainer.comparison.cell_process WORK < task.json`.

A process of its own gives each fit the whole memory, an honest peak of it, and a crash that takes nothing along.
"""

import json
import resource
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from trainer.comparison.cell import Answers, Cell, Costs, Task, parse_task, store
from trainer.comparison.cold_start import divide_cold, is_cold_start, parse_cold_start
from trainer.comparison.contender import ContenderError
from trainer.comparison.outsider import ask
from trainer.comparison.own_genres import OWN_GENRES, with_own_genres
from trainer.comparison.views import HELD_OUT, OWN_MAPS, View, make_views
from trainer.dataset import Dataset, Interactions
from trainer.errors import TrainerError
from trainer.evaluation import evaluate
from trainer.fits import fit_function
from trainer.fits.options import parse_options
from trainer.readers.read_options import ReadOptions, parse_columns, parse_scale
from trainer.snapshot import divide, take_snapshot
from trainer.training import commit_of_code
from two_tower.errors import TwoTowerError
from two_tower.serving import Model


def run(work: Path, request: dict[str, Any]) -> Path:
    """Runs a task and returns its cell's folder.

    Args:
        work: The folder of cells.
        request: "task", "source" and "reading", as `runner.request_for` writes it.

    Raises:
        TrainerError: The task does not fit the data.
    """
    task = parse_task(request["task"])
    reading = request["reading"]
    options = ReadOptions(
        columns=parse_columns(reading["columns"]),
        users_file=Path(reading["users"]) if reading["users"] else None,
        movies_file=Path(reading["movies"]) if reading["movies"] else None,
        scale=parse_scale(reading["scale"]) if reading["scale"] else None,
        max_broken_share=reading["max_broken"],
        movie_bags=tuple(reading["movie_bags"]),
    )
    snapshot = take_snapshot(request["source"], options)
    data = snapshot.data
    notes: tuple[str, ...]
    if is_cold_start(task.holdout):
        cold = divide_cold(data, parse_cold_start(task.holdout), task.split_seed)
        train, held_out, notes = cold.train, cold.held_out, ()
        asked = {name: View(rows, held_out) for name, rows in cold.known.items()}
    else:
        parts = divide(snapshot, task.holdout, task.split_seed)
        train, held_out, notes = parts.train, parts.held_out, parts.notes
        asked = _views(task, train, held_out)
    if task.contender.command:
        if is_cold_start(task.holdout):
            raise ContenderError(f"{task.contender.name}: a program cannot be asked about strangers, models only")
        answers, costs, more = ask(task.contender.command, data, train, held_out, task.seed)
        views = {HELD_OUT: answers}
        notes = (*notes, *more)
    else:
        model, costs = _fit(data, train, task)
        views = {}
        for name, view in asked.items():
            asks, about = model, data
            if name == OWN_GENRES:
                asks, about = with_own_genres(model, data, held_out, view.judged, task.split_seed)
            found = evaluate(asks, about, view.known, view.judged, protocol=task.holdout)
            views[name] = Answers.of(found, len(data.movies))
        costs = replace(costs, memory_mib=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
    return store(work, Cell(task, costs, commit_of_code(), views, notes))


def _views(task: Task, train: Interactions, held_out: Interactions) -> dict[str, View]:
    """Returns the rows of each way to ask; those with genres of their own have maps of their own, too."""
    rows = {name: OWN_MAPS if name == OWN_GENRES else name for name in task.views}
    made = make_views(tuple(rows.values()), train, held_out, task.split_seed)
    return {name: made[named] for name, named in rows.items()}


def _fit(data: Dataset, train: Interactions, task: Task) -> tuple[Model, Costs]:
    """Fits a model and gives it back as a service would read it from a checkpoint."""
    fit = fit_function(task.contender.model)
    options = parse_options(fit.options_class, task.contender.options)
    started_s, started_cpu_s = time.perf_counter(), time.process_time()
    model = fit.fit(replace(data, interactions=train), options, seed=task.seed, progress=_print)
    wall_s, cpu_s = time.perf_counter() - started_s, time.process_time() - started_cpu_s
    tensors, vocabularies, config = model.tensors(), model.vocabularies(), model.config()
    texts = json.dumps([vocabularies, config]).encode()
    size_bytes = sum(tensor.nbytes for tensor in tensors.values()) + len(texts)
    served = type(model).restore(config, tensors, vocabularies, model.device)
    return served, Costs(wall_s, cpu_s, size_bytes, 0.0)


def _print(done: int, total: int, message: str, figures: Any = None) -> None:
    print(f"{done}/{total} {message}", flush=True)


def main() -> int:
    """Reads the request from standard input."""
    try:
        print(run(Path(sys.argv[1]), json.load(sys.stdin)))
    except (TrainerError, TwoTowerError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
