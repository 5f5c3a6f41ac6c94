"""Draws findings with plotly. Knows figures and labels; knows no model and no page."""

import html
from collections.abc import Mapping, Sequence

import plotly.graph_objects as go

from trainer.report.findings import Band, Findings

# Okabe & Ito 2008: eight colours that people with any colour vision tell apart; genres beyond that are grey.
_COLOURS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#F0E442", "#000000")
_GREY = "#BBBBBB"
_HEIGHT_PX = 380


def figures_of(findings: Findings) -> Mapping[str, go.Figure]:
    """Returns every plot that there is something to draw for, by name, in the order in which they are read."""
    drawn: dict[str, go.Figure] = {}
    for place, (name, points) in enumerate(findings.curves.items()):
        drawn[f"curve-{place}"] = _curve(name, points)
    if findings.reliability:
        drawn["reliability"] = _reliability(findings)
    if findings.intervals:
        drawn["intervals"] = _intervals(findings)
    if findings.by_known:
        drawn["error-by-known"] = _error_bars(findings.by_known, "known ratings of the user")
    if findings.by_popularity:
        drawn["error-by-popularity"] = _error_bars(findings.by_popularity, "training ratings of the movie")
    if findings.strangers:
        drawn["cold-start"] = _cold_start(findings)
    if findings.movie_map:
        drawn["movie-map"] = _movie_map(findings)
    if findings.best_movies:
        drawn["movie-biases"] = _movie_biases(findings)
    if findings.genre_biases:
        drawn["genre-biases"] = _genre_biases(findings)
    if findings.genres:
        drawn["genre-similarity"] = _genre_similarity(findings)
    return drawn


def _curve(name: str, points: Sequence[Sequence[float]]) -> go.Figure:
    figure = go.Figure(
        go.Scatter(x=[100 * share for share, _ in points], y=[value for _, value in points], mode="lines+markers")
    )
    return _laid_out(figure, "% of the training done", html.escape(name))


def _reliability(findings: Findings) -> go.Figure:
    groups = findings.reliability
    ends = [min(each.predicted for each in groups), max(each.predicted for each in groups)]
    figure = go.Figure(
        [
            go.Scatter(x=ends, y=ends, mode="lines", name="right on average", line={"dash": "dot", "color": _GREY}),
            go.Scatter(
                x=[each.predicted for each in groups],
                y=[each.actual for each in groups],
                mode="markers",
                name="held-out ratings",
                text=[f"{each.num_ratings:,} ratings" for each in groups],
                marker={"color": _COLOURS[0], "size": 9},
            ),
        ]
    )
    return _laid_out(figure, "predicted, stars", "given on average, stars")


def _intervals(findings: Findings) -> go.Figure:
    figure = go.Figure(
        [
            go.Scatter(x=[0, 1], y=[0, 1], mode="lines", name="calibrated", line={"dash": "dot", "color": _GREY}),
            go.Scatter(
                x=[each.nominal for each in findings.intervals],
                y=[each.actual for each in findings.intervals],
                mode="lines+markers",
                name="held-out ratings",
                line={"color": _COLOURS[0]},
            ),
        ]
    )
    return _laid_out(figure, "share that the interval should hold", "share that it holds")


def _error_bars(bands: Sequence[Band], what: str) -> go.Figure:
    figure = go.Figure(
        go.Bar(
            x=[band.name for band in bands],
            y=[band.rmse for band in bands],
            text=[f"n = {band.num_ratings:,}" for band in bands],
            marker={"color": _COLOURS[0]},
        )
    )
    return _laid_out(figure, what, "RMSE, stars", categories=True)


def _cold_start(findings: Findings) -> go.Figure:
    told = findings.strangers
    traces = []
    if told[0].rmse is not None:
        traces.append(
            go.Scatter(
                x=[each.known for each in told],
                y=[each.rmse for each in told],
                mode="lines+markers",
                name="RMSE, stars",
                line={"color": _COLOURS[0]},
            )
        )
    traces.append(
        go.Scatter(
            x=[each.known for each in told],
            y=[each.ndcg_at_10 for each in told],
            mode="lines+markers",
            name="NDCG@10 (right axis)",
            yaxis="y2",
            line={"color": _COLOURS[3]},
        )
    )
    figure = go.Figure(traces)
    figure.update_layout(yaxis2={"overlaying": "y", "side": "right", "showgrid": False, "rangemode": "tozero"})
    return _laid_out(figure, "events that are known of somebody", "RMSE, stars")


def _movie_map(findings: Findings) -> go.Figure:
    counts: dict[str, int] = {}
    for point in findings.movie_map:
        counts[point.genre] = counts.get(point.genre, 0) + 1
    by_size = sorted(counts, key=lambda genre: -counts[genre])
    figure = go.Figure()
    for place, genre in enumerate(by_size):
        points = [point for point in findings.movie_map if point.genre == genre]
        figure.add_trace(
            go.Scatter(
                x=[point.x for point in points],
                y=[point.y for point in points],
                mode="markers",
                name=html.escape(genre) or "no genre",
                hovertext=[f"{html.escape(point.title)}<br>{point.num_ratings:,} ratings" for point in points],
                hoverinfo="text",
                marker={"size": 7, "color": _COLOURS[place] if place < len(_COLOURS) else _GREY},
            )
        )
    figure.update_xaxes(visible=False)
    figure.update_yaxes(visible=False)
    return _laid_out(figure, None, None, height_px=640)


def _movie_biases(findings: Findings) -> go.Figure:
    movies = [*findings.best_movies, *findings.worst_movies[::-1]]
    # A place of its own for each: two movies of the same title are two bars.
    places = [f"{place:02d}" for place in range(len(movies))]
    figure = go.Figure(
        go.Bar(
            x=[movie.stars for movie in movies],
            y=places,
            orientation="h",
            hovertext=[f"{movie.num_ratings:,} ratings" for movie in movies],
            marker={"color": [_COLOURS[2] if movie.stars > 0 else _COLOURS[3] for movie in movies]},
        )
    )
    titles = [html.escape(movie.title) for movie in movies]
    figure.update_yaxes(tickvals=places, ticktext=titles, autorange="reversed", automargin=True)
    return _laid_out(figure, "stars above the average movie", None, height_px=80 + 22 * len(movies))


def _genre_biases(findings: Findings) -> go.Figure:
    genres = findings.genre_biases
    figure = go.Figure(
        go.Bar(
            x=[each.stars for each in genres],
            y=[html.escape(each.genre) for each in genres],
            orientation="h",
            text=[f"{each.num_movies:,} movies" for each in genres],
            marker={"color": _COLOURS[0]},
        )
    )
    figure.update_yaxes(autorange="reversed", automargin=True)
    return _laid_out(figure, "stars above the average movie", None, height_px=120 + 22 * len(genres))


def _genre_similarity(findings: Findings) -> go.Figure:
    names = [html.escape(genre) for genre in findings.genres]
    figure = go.Figure(
        go.Heatmap(x=names, y=names, z=findings.genre_cosines, colorscale="RdBu", zmid=0, zmin=-1, zmax=1)
    )
    figure.update_yaxes(autorange="reversed", automargin=True)
    return _laid_out(figure, None, None, height_px=160 + 24 * len(names))


def _laid_out(
    figure: go.Figure, x: str | None, y: str | None, *, height_px: int = _HEIGHT_PX, categories: bool = False
) -> go.Figure:
    figure.update_layout(
        template="plotly_white",
        height=height_px,
        margin={"l": 60, "r": 60, "t": 20, "b": 50},
        legend={"orientation": "h", "y": 1.08},
    )
    figure.update_xaxes(title_text=x, type="category" if categories else None)
    if y is not None:
        figure.update_yaxes(title_text=y, selector={"overlaying": None})
    return figure
