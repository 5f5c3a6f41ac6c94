"""Puts plots and lists into one HTML file that needs no network. Knows findings and figures; knows no model."""

import html
from collections.abc import Mapping, Sequence

import plotly.graph_objects as go
import plotly.io
from plotly.offline import get_plotlyjs

from trainer.report.figures import figures_of
from trainer.report.findings import Findings

REPORT_FILE = "report.html"

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #222; max-width: 1000px; margin: 2em auto; padding: 0 1em; }
h1 { font-size: 1.6em; } h2 { font-size: 1.2em; margin-top: 2em; }
table { border-collapse: collapse; margin: .5em 0; } td, th { padding: .2em .8em .2em 0; text-align: left; }
td { vertical-align: top; } tr + tr { border-top: 1px solid #ddd; } p { max-width: 46em; }
""".strip()

_SECTIONS = (
    ("Training", "What the fit reported on the way.", ("curve-",)),
    (
        "Is it right on average?",
        "Held-out ratings in twenty groups of equal size by prediction: on the dotted line, what is predicted is what "
        "is given on average.",
        ("reliability",),
    ),
    (
        "Does it know how sure it is?",
        "How many held-out ratings lie within the intervals that should hold a given share of them.",
        ("intervals",),
    ),
    (
        "Where it errs",
        "Error on held-out ratings by what was known of the user, and by how often the movie was rated.",
        ("error-by-known", "error-by-popularity"),
    ),
    (
        "Strangers",
        "Users whose id is hidden, and of whom only their newest few events are shown: how fast answers get better. "
        "The same people all along; the movies were learnt with their ratings in.",
        ("cold-start",),
    ),
    (
        "Map of the movies",
        "The movies rated most, coloured by their first genre: neighbours are what SimilarMovies answers (t-SNE; "
        "distances across the map mean nothing). Point at one for its title.",
        ("movie-map",),
    ),
    (
        "Movies by bias",
        "Stars by which somebody of whom nothing is known would rate a movie above or below the average movie.",
        ("movie-biases",),
    ),
    (
        "Genres",
        "The same for the movies of each genre, and how alike genres are: the cosine of their movies' mean vectors, "
        "less what all movies have in common.",
        ("genre-biases", "genre-similarity"),
    ),
)


def page_of(findings: Findings) -> bytes:
    """Returns the page. Every plot stands in a div whose id is "plot-" and its name."""
    figures = figures_of(findings)
    parts = [_table(("", ""), findings.facts)]
    for heading, sentence, prefixes in _SECTIONS:
        plots = [_div(name, figure) for name, figure in figures.items() if name.startswith(prefixes)]
        if plots:
            parts += [f"<h2>{html.escape(heading)}</h2><p>{html.escape(sentence)}</p>", *plots]
    if findings.neighbourhoods:
        parts += [
            "<h2>Nearest movies</h2><p>Of the movies with the most ratings, with the cosine.</p>",
            _nearest(findings),
        ]
    title = html.escape(findings.title)
    return "\n".join(
        [
            "<!doctype html>",
            f'<html lang="en"><head><meta charset="utf-8"><title>{title}</title><style>{_STYLE}</style>',
            f"<script>{get_plotlyjs()}</script></head><body><h1>{title}</h1>",
            *parts,
            "</body></html>",
        ]
    ).encode()


def plot_names(findings: Findings) -> tuple[str, ...]:
    """Returns the names of the plots on the page."""
    names: Mapping[str, go.Figure] = figures_of(findings)
    return tuple(names)


def _div(name: str, figure: go.Figure) -> str:
    drawn: str = plotly.io.to_html(
        figure,
        full_html=False,
        include_plotlyjs=False,
        div_id=f"plot-{name}",
        config={"displaylogo": False, "responsive": True},
    )
    return drawn


def _nearest(findings: Findings) -> str:
    rows = [
        (each.title, ", ".join(f"{neighbour.title} ({neighbour.cosine:.2f})" for neighbour in each.neighbours))
        for each in findings.neighbourhoods
    ]
    return _table(("movie", "nearest"), rows)


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f"<th>{html.escape(each)}</th>" for each in heads)
    body = "".join("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
