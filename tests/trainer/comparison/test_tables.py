"""Tables say what was measured, and a dash where nothing was."""

import numpy as np

from trainer.comparison.calibration_table import render_calibration, render_calibration_of_strangers
from trainer.comparison.cell import Answers, Cell, Costs, Task
from trainer.comparison.comparing import Comparison, Plan, lay_out
from trainer.comparison.contender import Contender
from trainer.comparison.runner import Outcome
from trainer.comparison.table import differences_table, figures_table
from trainer.dataset import Interactions


def _cell(name: str, error: float, deviation: float, ranked: bool = True) -> Cell:
    """Twenty users with one row each, all predicted by `error` too high; a hit at rank 1 where lists are given."""
    rows = Interactions(
        np.arange(20, dtype=np.int32), np.arange(20, dtype=np.int32) % 5, np.full(20, 3, np.float32), np.zeros(20, int)
    )
    predicted = np.full(20, 3 + error, np.float32)
    lists = np.full((20, 10), -1)
    if ranked:
        lists[:, 0] = np.arange(20) % 5
    answers = Answers(
        rows, predicted, predicted, np.full(20, deviation, np.float32), np.full(20, 7), rows.user_rows, lists, 10
    )
    task = Task(Contender(name, name), "toy", "", "", "random:0.1", 0, 0, "")
    return Cell(task, Costs(1.25, 2.5, 2_000_000 if ranked else None, 100.0), "abc", {"held_out": answers})


def _comparison() -> Comparison:
    cells = [_cell("ours", 0.5, 1.0), _cell("theirs", 1.0, np.nan, ranked=False)]
    plan = Plan([cell.task.contender for cell in cells], "random:0.1", (0,), "ours")
    return lay_out(plan, "toy", Outcome(cells, []))


def test_figures_of_a_small_case() -> None:
    """Errors of half a star, all hits at rank 1, five of ten movies listed evenly; the better figure is bold."""
    ours, theirs = figures_table(_comparison()).splitlines()[2:]

    assert ours.startswith("| `ours` | **0.5000** | **0.2500** | **0.5000** | **1.0000** | **1.0000** | **1.0000** |")
    assert "| **0.500** | **0.500** | 1 | 1.2 | 2.5 | 2.0 | 105 |" in ours
    assert theirs.startswith("| `theirs` | 1.0000 | 1.0000 | 1.0000 | - | - | - | - | - | 1 |")
    assert theirs.endswith("| 1.2 | 2.5 | - | 105 |")


def test_differences_stand_with_their_intervals() -> None:
    """Every user differs by the same, so the interval has no width; who cannot rank has a dash."""
    header, _, line = differences_table(_comparison()).splitlines()

    assert header.startswith("| minus `ours` | Δ RMSE [95%] | Δ MAE [95%]")
    assert line.startswith("| `theirs` | **+0.5000 [+0.5000, +0.5000]** | **+0.5000 [+0.5000, +0.5000]**")


def test_intervals_are_counted_for_those_who_state_any() -> None:
    """Errors of .5 within 1.28 of a deviation of 1: all of twenty rows, of users with 5 to 19 known ratings."""
    text = render_calibration(_comparison())

    assert "| `ours`, seed 0 | 1.000 (20) | - | - | 1.000 (20) | - | - | - |" in text
    assert "| all | 0 | 1-4 | 5-19 | 20-49 | 50-199 | 200- |" in text
    assert "theirs" not in text
    assert "| `ours` | 1.000 |" in render_calibration_of_strangers(_comparison())
