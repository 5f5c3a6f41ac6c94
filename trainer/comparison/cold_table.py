"""Writes comparisons on strangers as Markdown. Knows rows and columns; computes nothing."""

from collections.abc import Mapping

from trainer.comparison.comparing import Comparison
from trainer.comparison.judgement import METRIC_NAMED
from trainer.comparison.table import NONE, markdown_table, number

_SHOWN = ("rmse", "ndcg")


def render_new_users(by_known: Mapping[str, Comparison]) -> str:
    """Returns tables of users that were held out, a column for each number of known ratings.

    Args:
        by_known: Number of known ratings → comparison, all on the same rows.
    """
    first = next(iter(by_known.values()), None)
    if first is None:
        return "### New users\n\nNothing was measured.\n"
    answers = next(iter(first.cells[0].views.values()))
    parts = [
        f"### {first.data_name}: new users (`{first.holdout}`)",
        f"Held-out users by how many of their ratings are told; {len(answers.users):,} users and "
        f"{len(answers.held_out):,} judged rows in each split, the same in every column, of the same fit. "
        f"In brackets the 95% interval of the difference to `{first.reference}`, users drawn 2,000 times.",
    ]
    for metric in _SHOWN:
        title, digits = METRIC_NAMED[metric].title, METRIC_NAMED[metric].digits
        lines = []
        for place, row in enumerate(first.rows):
            cells = []
            for comparison in by_known.values():
                own = comparison.rows[place]
                interval = own.intervals.get(metric)
                text = number(own.figures[metric], digits)
                if interval is not None:
                    text += f" ({interval.difference:+.4f} [{interval.low:+.4f}, {interval.high:+.4f}])"
                    text = f"**{text}**" if interval.excludes_zero else text
                cells.append(text)
            lines.append([f"`{row.name}`", *cells])
        parts.append(markdown_table([title, *(f"{view} known" for view in by_known)], lines))
    return "\n\n".join(parts) + "\n"


def render_new_movies(comparison: Comparison) -> str:
    """Returns a table of movies that were held out with all their ratings."""
    if not comparison.rows:
        return "### New movies\n\nNothing was measured.\n"
    answers = next(iter(comparison.cells[0].views.values()))
    header = ["", "RMSE", "MAE", "NDCG@10", f"Δ RMSE to `{comparison.reference}` [95%]"]
    lines = []
    for row in comparison.rows:
        interval = row.intervals.get("rmse")
        text = NONE
        if interval is not None:
            text = f"{interval.difference:+.4f} [{interval.low:+.4f}, {interval.high:+.4f}]"
            text = f"**{text}**" if interval.excludes_zero else text
        figures = [number(row.figures[name], 4) for name in ("rmse", "mae", "ndcg")]
        lines.append([f"`{row.name}`", *figures, text])
    return (
        f"### {comparison.data_name}: new movies (`{comparison.holdout}`)\n\n"
        f"Movies held out with all their ratings: {len(answers.held_out):,} judged rows in each split.\n\n"
        + markdown_table(header, lines)
        + "\n"
    )
