"""The command that shows in a terminal what a training's report shows in a browser: inspect-model."""

from collections.abc import Sequence
from typing import Annotated

import numpy as np
import typer
from rich.table import Table

from trainer.commands.data_options import (
    DEFAULT_MAX_BROKEN,
    ColumnsOption,
    MaxBrokenOption,
    MovieBagOption,
    MoviesOption,
    ScaleOption,
    UsersOption,
    read_options,
)
from trainer.commands.progress_bar import progress_bar
from trainer.commands.registry_options import RegistryOption, resolve_version
from trainer.commands.terminal import Terminal
from trainer.evaluation import evaluate
from trainer.report.findings import Band, Findings, read
from trainer.report.making import find
from trainer.snapshot import divide_again, take_snapshot
from two_tower import checkpoint as checkpoints
from two_tower.registry import STABLE, Registry

_ALIKE_PAIRS = 10


def register(app: typer.Typer) -> None:
    """Adds the command to an application."""
    app.command("inspect-model", short_help="Shows what a model has learnt.")(inspect_model_command)


def inspect_model_command(
    registry: RegistryOption,
    version: Annotated[
        str, typer.Argument(metavar="VERSION", help="Version of the checkpoint, or a label that names one.")
    ] = STABLE,
    data: Annotated[
        str | None,
        typer.Option(
            "--data",
            metavar="DATA",
            help="Ask the model anew, on the data that it was trained on. Default: what its report.json says.",
        ),
    ] = None,
    columns: ColumnsOption = "",
    users: UsersOption = None,
    movies: MoviesOption = None,
    scale: ScaleOption = "",
    max_broken: MaxBrokenOption = DEFAULT_MAX_BROKEN,
    movie_bag: MovieBagOption = None,
) -> None:
    """Shows what a model has learnt: movies by bias, genres, nearest movies, errors, answers to strangers."""
    store = Registry(registry)
    folder = store.path_of(resolve_version(store, version))
    if data is None:
        findings = read(folder)
    else:
        loaded = checkpoints.load(folder)
        with progress_bar("reading") as progress:
            snapshot = take_snapshot(data, read_options(columns, users, movies, scale, max_broken, movie_bag))
            parts = divide_again(snapshot, loaded.manifest)
            model, manifest = loaded.model, loaded.manifest
            evaluation = evaluate(
                model,
                snapshot.data,
                parts.train,
                parts.held_out,
                protocol=manifest.metrics.protocol,
                window=manifest.history_window,
                popularity=loaded.popularity_over(snapshot.data.movies.movie_ids),
                progress=progress,
            )
            findings = find(model, loaded.version, manifest, snapshot.data, parts.train, evaluation)
    for table in _tables(findings):
        Terminal().print(table)


def _tables(findings: Findings) -> list[Table]:
    tables = [_table(findings.title, ("", ""), findings.facts)]
    for title, bands in (
        ("Error by known ratings of the user", findings.by_known),
        ("Error by training ratings of the movie", findings.by_popularity),
    ):
        rows = [_band(each) for each in bands]
        tables.append(_table(title, ("", "ratings", "rmse", "bias", "in 80% interval"), rows))
    strangers = [
        (str(each.known), f"{each.num_users:,}", _number(each.rmse), _number(each.ndcg_at_10))
        for each in findings.strangers
    ]
    tables.append(_table("Strangers", ("events known", "users", "rmse", "ndcg@10"), strangers))
    for title, movies in (
        ("Movies by bias, highest", findings.best_movies),
        ("Movies by bias, lowest", findings.worst_movies),
    ):
        listed = [(each.title, f"{each.stars:+.2f}", f"{each.num_ratings:,}") for each in movies]
        tables.append(_table(title, ("movie", "stars", "ratings"), listed))
    genres = [(each.genre, f"{each.stars:+.3f}", f"{each.num_movies:,}") for each in findings.genre_biases]
    tables.append(_table("Genres by bias", ("genre", "stars", "movies"), genres))
    tables.append(_table("Genres most alike", ("genre", "genre", "cosine"), _most_alike(findings)))
    nearest = [
        (each.title, "\n".join(f"{neighbour.title} ({neighbour.cosine:.2f})" for neighbour in each.neighbours))
        for each in findings.neighbourhoods
    ]
    tables.append(_table("Nearest movies", ("movie", "nearest"), nearest))
    return [table for table in tables if table.row_count]


def _table(title: str, heads: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> Table:
    table = Table(title=title, show_header=any(heads))
    for head in heads:
        table.add_column(head, overflow="fold")
    for row in rows:
        table.add_row(*row)
    return table


def _band(band: Band) -> tuple[str, ...]:
    covered = "none" if band.covered is None else f"{band.covered:.0%}"
    return band.name, f"{band.num_ratings:,}", f"{band.rmse:.4f}", f"{band.bias:+.3f}", covered


def _most_alike(findings: Findings) -> list[tuple[str, ...]]:
    cosines = np.asarray(findings.genre_cosines)
    if not len(cosines):
        return []
    first, second = np.triu_indices(len(cosines), k=1)
    order = np.argsort(-cosines[first, second], kind="stable")[:_ALIKE_PAIRS]
    return [
        (findings.genres[int(row)], findings.genres[int(column)], f"{cosines[row, column]:.2f}")
        for row, column in zip(first[order], second[order], strict=True)
    ]


def _number(value: float | None) -> str:
    return "none" if value is None else f"{value:.4f}"
