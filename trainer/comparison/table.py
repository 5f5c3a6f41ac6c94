"""Writes a comparison as Markdown. Knows rows and columns; computes nothing."""

import math
from collections.abc import Sequence

from trainer.comparison.comparing import Comparison, Row
from trainer.comparison.judgement import METRIC_NAMED, Metric

HEADLINE = ("rmse", "mse", "mae", "ndcg", "recall", "mrr", "coverage", "gini")
PAIRED = ("rmse", "mae", "ndcg", "recall", "mrr")
NONE = "-"
HOW_TO_READ = (
    "Rating errors are of clipped ratings. Lists are of the full catalogue without what the user watched in training; "
    "every held-out movie is relevant. Means over seeds ± standard deviation, the best of a column bold.",
    "Differences are on identical rows, with 95% intervals from users drawn with replacement 2,000 times; bold where "
    "zero lies outside. A rating error is better lower, a list metric better higher.",
)
"""Sentences for a person, as lines of a list."""


def markdown_table(header: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """Returns a table, its first column to the left and the others to the right."""
    rule = ["---"] + ["---:"] * (len(header) - 1)
    return "\n".join("| " + " | ".join(line) + " |" for line in (header, rule, *lines))


def figures_table(comparison: Comparison, metrics: Sequence[str] = HEADLINE) -> str:
    """Returns every contender's figures, costs included; the best of a column is bold."""
    columns = [METRIC_NAMED[name] for name in metrics if any(known(row.figures[name]) for row in comparison.rows)]
    best = {metric.name: _best(comparison.rows, metric) for metric in columns}
    header = ["", *(metric.title for metric in columns), "seeds", "fit, wall s", "fit, CPU s", "size, MB", "peak, MB"]
    lines = []
    for row in comparison.rows:
        cells = []
        for metric in columns:
            text = number(row.figures[metric.name], metric.digits)
            spread = row.spread[metric.name]
            text += f" ± {number(spread, metric.digits)}" if known(spread) else ""
            cells.append(f"**{text}**" if row.name == best[metric.name] else text)
        size = NONE if row.size_bytes is None else f"{row.size_bytes / 1e6:.1f}"
        costs = [f"{row.wall_s:.1f}", f"{row.cpu_s:.1f}", size, f"{row.memory_mib * 1.048576:.0f}"]
        lines.append([f"`{row.name}`", *cells, f"{len(row.seeds)}", *costs])
    return markdown_table(header, lines)


def differences_table(comparison: Comparison, metrics: Sequence[str] = PAIRED) -> str:
    """Returns every contender's differences to the reference with their intervals; bold where zero lies outside."""
    others = [row for row in comparison.rows if row.intervals]
    columns = [METRIC_NAMED[name] for name in metrics if any(name in row.intervals for row in others)]
    header = [f"minus `{comparison.reference}`", *(f"Δ {metric.title} [95%]" for metric in columns)]
    lines = []
    for row in others:
        cells = []
        for metric in columns:
            interval = row.intervals.get(metric.name)
            if interval is None:
                cells.append(NONE)
                continue
            text = f"{interval.difference:+.4f} [{interval.low:+.4f}, {interval.high:+.4f}]"
            cells.append(f"**{text}**" if interval.excludes_zero else text)
        lines.append([f"`{row.name}`", *cells])
    return markdown_table(header, lines)


def render(
    comparison: Comparison, *, metrics: Sequence[str] = HEADLINE, plot: str | None = None, explained: bool = True
) -> str:
    """Returns the whole section: both tables, the plot if there is one, and how to read them if that is wanted."""
    parts = [f"### {comparison.data_name}, `{comparison.holdout}`", figures_table(comparison, metrics)]
    if any(row.intervals for row in comparison.rows):
        parts.append(differences_table(comparison))
    if plot is not None:
        parts.append(f"![Differences to {comparison.reference}, {comparison.data_name}]({plot})")
    notes = [*comparison.notes, _extent(comparison), *(HOW_TO_READ if explained else ())]
    notes += [
        f"`{failure.task.contender.name}`, seed {failure.task.seed}, came to nothing: {failure.reason}"
        for failure in comparison.failures
    ]
    parts.append("\n".join(f"- {note}" for note in notes))
    return "\n\n".join(parts) + "\n"


def _extent(comparison: Comparison) -> str:
    size = ""
    if comparison.cells:
        answers = next(iter(comparison.cells[0].views.values()))
        size = f": {len(answers.held_out):,} rows of {len(answers.users):,} users in each split"
    return (
        f"Held out by `{comparison.holdout}`{size}. Code: {', '.join(f'`{each:.12}`' for each in comparison.commits)}."
    )


def _best(rows: Sequence[Row], metric: Metric) -> str | None:
    found = [row for row in rows if known(row.figures[metric.name])]
    if not found:
        return None
    pick = min if metric.better == "lower" else max
    return pick(found, key=lambda row: row.figures[metric.name]).name


def known(value: float) -> bool:
    """Tells whether there is a value."""
    return not math.isnan(value)


def number(value: float, digits: int) -> str:
    """Returns a number for a cell."""
    return f"{value:.{digits}f}" if known(value) else NONE
