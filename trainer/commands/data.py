"""The commands that fetch, make and look at data: download, synthesize, inspect."""

import shlex
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn
from rich.table import Table

from trainer.commands.data_options import (
    DEFAULT_MAX_BROKEN,
    ColumnsOption,
    DataArgument,
    MaxBrokenOption,
    MovieBagOption,
    MoviesOption,
    ScaleOption,
    UsersOption,
    option_words,
    read_options,
)
from trainer.commands.progress_bar import progress_bar
from trainer.commands.terminal import Terminal
from trainer.data_cache import DATASET_NAMES, cache_folder
from trainer.download import GROUPLENS_URL, Downloader, licence_of
from trainer.inspection import Inspection, inspect_data
from trainer.synthesis import SynthesisPlan, write_synthetic

_DEFAULT = SynthesisPlan()


def register(app: typer.Typer) -> None:
    """Adds the commands to an application."""
    app.command("download", short_help="Fetches a MovieLens data set.")(download_command)
    app.command("synthesize", short_help="Makes up a data set with the shape of MovieLens.")(synthesize_command)
    app.command("inspect", short_help="Says what a data set holds, and what to run on it.")(inspect_command)


def download_command(
    name: Annotated[str, typer.Argument(metavar="NAME", help=f"One of {', '.join(DATASET_NAMES)}.")],
    cache: Annotated[
        Path | None,
        typer.Option(
            "--cache",
            metavar="DIR",
            help="Where to keep it. Default: $MARQUEE_CACHE, else this machine's place for caches.",
        ),
    ] = None,
    base_url: Annotated[str, typer.Option("--from", metavar="URL", help="A mirror of GroupLens.")] = GROUPLENS_URL,
) -> None:
    """Fetches a MovieLens data set from GroupLens and shows its licence; an interrupted download is resumed."""
    bar = Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
        console=Terminal(stderr=True),
        transient=True,
    )
    with bar:
        task = bar.add_task(name, total=None)
        downloader = Downloader(
            cache or cache_folder(),
            base_url.rstrip("/"),
            lambda done, total: bar.update(task, completed=done, total=total),
        )
        archive = downloader.fetch(name)
    typer.echo(licence_of(archive))
    typer.echo(f"\n{archive}\nTry: python -m trainer inspect {shlex.quote(name if cache is None else str(archive))}")


def synthesize_command(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Where to write; made if absent.")],
    users: Annotated[int, typer.Option("--users", help="Number of users.")] = _DEFAULT.num_users,
    movies: Annotated[int, typer.Option("--movies", help="Number of movies.")] = _DEFAULT.num_movies,
    ratings: Annotated[int, typer.Option("--ratings", help="Number of ratings.")] = _DEFAULT.num_ratings,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Same figures and seed, same bytes.")] = _DEFAULT.seed,
    file_format: Annotated[
        Literal["csv", "parquet"], typer.Option("--format", help="csv for people, parquet for size.")
    ] = "csv",
) -> None:
    """Makes up a data set with the shape of MovieLens: people, movies, tastes, and an order in what is watched."""
    plan = SynthesisPlan(users, movies, ratings, seed)
    done = 0
    with progress_bar("synthesizing") as report:

        def on_progress(num_ratings: int) -> None:
            nonlocal done
            done += num_ratings
            report(done, ratings, "synthesizing")

        write_synthetic(plan, folder, file_format, on_progress)
    typer.echo(f"{folder}: {users:,} users, {movies:,} movies, {ratings:,} ratings, seed {seed}")


def inspect_command(
    data: DataArgument,
    columns: ColumnsOption = "",
    users: UsersOption = None,
    movies: MoviesOption = None,
    scale: ScaleOption = "",
    max_broken: MaxBrokenOption = DEFAULT_MAX_BROKEN,
    movie_bag: MovieBagOption = None,
) -> None:
    """Says what a data set holds, which of its rows are broken, which models fit it, and what to run."""
    options = read_options(columns, users, movies, scale, max_broken, movie_bag)
    words = option_words(columns, users, movies, scale, max_broken, movie_bag)
    with progress_bar("reading"):
        inspection = inspect_data(data, options, words)
    _show(inspection, Terminal())


def _show(inspection: Inspection, console: Terminal) -> None:
    facts = Table(title=inspection.name, show_header=False)
    facts.add_column(style="bold")
    facts.add_column(overflow="fold")
    for label, text in inspection.facts:
        facts.add_row(label, text)
    facts.add_row("set aside", "\n".join(inspection.broken) or "no row")
    console.print(facts)
    models = Table(title="Models, trained on one processor core")
    for heading in ("model", "fits", "minutes", "memory", "remarks"):
        models.add_column(
            heading, no_wrap=heading != "remarks", justify="right" if heading in ("minutes", "memory") else "left"
        )
    for model in inspection.models:
        figures = (f"about {model.minutes:,.1f}", f"about {model.memory_gib:,.1f} GiB") if model.fits else ("", "")
        models.add_row(model.model, "yes" if model.fits else "no", *figures, model.reason)
    console.print(models)
    if inspection.recommended is None:
        console.print("No model fits this data.")
    else:
        # Unwrapped, so that it can be copied.
        console.print("Run:")
        console.out(inspection.recommended.command, highlight=False)
