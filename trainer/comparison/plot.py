"""Draws a comparison: each contender's difference to the reference with its interval. Knows no table and no cell."""

from pathlib import Path

from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from trainer.comparison.comparing import Comparison
from trainer.comparison.judgement import METRIC_NAMED

SHOWN = ("rmse", "ndcg")


def draw(comparison: Comparison, path: Path) -> bool:
    """Writes an SVG and returns True, or returns False where there is nothing to draw."""
    metrics = [name for name in SHOWN if any(name in row.intervals for row in comparison.rows)]
    if not metrics:
        return False
    names = [row.name for row in comparison.rows if row.intervals]
    figure = Figure(figsize=(5 * len(metrics) + 2, 0.32 * len(names) + 1.6), layout="constrained")
    axes = figure.subplots(1, len(metrics), squeeze=False, sharey=True)[0]
    for axis, metric in zip(axes, metrics, strict=True):
        title = METRIC_NAMED[metric].title
        for place, row in enumerate(row for row in comparison.rows if row.intervals):
            interval = row.intervals.get(metric)
            if interval is None:
                continue
            worse = interval.difference > 0 if METRIC_NAMED[metric].better == "lower" else interval.difference < 0
            colour = ("#b3452c" if worse else "#2c7a4b") if interval.excludes_zero else "#777777"
            axis.plot([interval.low, interval.high], [place, place], color=colour, linewidth=2)
            axis.plot([interval.difference], [place], "o", color=colour)
        axis.axvline(0, color="#333333", linewidth=0.8)
        axis.set_title(f"{title} minus that of {comparison.reference}, {METRIC_NAMED[metric].better} is better")
        axis.grid(axis="x", alpha=0.3)
    axes[0].set_yticks(range(len(names)), names)
    axes[0].invert_yaxis()
    figure.suptitle(f"{comparison.data_name}, {comparison.holdout}")
    FigureCanvasSVG(figure).print_svg(path, metadata={"Date": None})  # type: ignore[no-untyped-call]
    return True
