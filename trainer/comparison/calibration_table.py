"""Writes how often stated intervals held the truth as Markdown. Knows rows and columns; computes nothing."""

from trainer.comparison.comparing import Comparison, answers_of
from trainer.comparison.judgement import KNOWN_BOUNDS, calibration
from trainer.comparison.table import NONE, markdown_table


def render_calibration(comparison: Comparison) -> str:
    """Returns a table of the contenders that state a deviation, "" if none does."""
    columns = (-1, *KNOWN_BOUNDS)
    lines = []
    for cell in comparison.cells:
        found = {each.low: each for each in calibration(answers_of(cell, None))}
        if found:
            shares = [
                f"{found[low].covered:.3f} ({found[low].num_rows:,})" if low in found else NONE for low in columns
            ]
            lines.append([f"`{cell.task.contender.name}`, seed {cell.task.seed}", *shares])
    if not lines:
        return ""
    ends = [str(bound - 1) for bound in KNOWN_BOUNDS[1:]]
    groups = [low if low == last else f"{low}-{last}" for low, last in zip(map(str, KNOWN_BOUNDS), ends, strict=False)]
    header = ["covered (rows) by known ratings", "all", *groups, f"{KNOWN_BOUNDS[-1]}-"]
    return f"### {comparison.data_name}, `{comparison.holdout}`\n\n{markdown_table(header, lines)}\n"


def render_calibration_of_strangers(comparison: Comparison) -> str:
    """Returns a table of held-out users, a column for each number of ratings that was told; "" if nobody states any."""
    lines = []
    views: list[str] = []
    for cell in comparison.cells:
        overall = {view: calibration(answers) for view, answers in cell.views.items()}
        if all(overall.values()):
            views = list(overall)
            lines.append([f"`{cell.task.contender.name}`", *(f"{found[0].covered:.3f}" for found in overall.values())])
    if not lines:
        return ""
    header = ["covered", *(f"{view} known" if view != "new movies" else view for view in views)]
    return f"### {comparison.data_name}, `{comparison.holdout}`\n\n{markdown_table(header, lines)}\n"
