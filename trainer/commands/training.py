"""The commands that make and judge checkpoints: train, evaluate."""

from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.table import Table

from trainer.commands.data_options import (
    DEFAULT_MAX_BROKEN,
    ColumnsOption,
    DataOption,
    HoldoutOption,
    MaxBrokenOption,
    MovieBagOption,
    MoviesOption,
    ScaleOption,
    UsersOption,
    read_options,
)
from trainer.commands.progress_bar import progress_bar
from trainer.commands.registry_options import DEFAULT_CHECKPOINT, CheckpointOption, RegistryOption, resolve_version
from trainer.commands.terminal import Terminal
from trainer.evaluation import RANKS, evaluate
from trainer.fits import fit_function
from trainer.fits.options import parse_options
from trainer.predictions import check_table_path, write_lists, write_predictions
from trainer.processes import joined
from trainer.report.page import REPORT_FILE
from trainer.snapshot import default_holdout, divide, divide_again, join_notes, require_holdout, take_snapshot
from trainer.training import DEFAULT_MODEL, Outcome, Request, require_model_of_processes, take_part, train
from two_tower import checkpoint as checkpoints
from two_tower.manifest import Manifest, Metrics
from two_tower.models import MODELS
from two_tower.registry import STABLE, Registry

_MODELS = ", ".join(sorted(MODELS))


def register(app: typer.Typer) -> None:
    """Adds the commands to an application."""
    app.command("train", short_help="Makes a checkpoint from data and judges it.")(train_command)
    app.command("evaluate", short_help="Judges a checkpoint again.")(evaluate_command)


def train_command(
    data: DataOption,
    registry: RegistryOption,
    model: Annotated[str, typer.Option("--model", metavar="MODEL", help=f"Which model: {_MODELS}.")] = DEFAULT_MODEL,
    holdout: HoldoutOption = None,
    seed: Annotated[int, typer.Option("--seed", min=0, max=2**32 - 1, help="Seed of split and fit.")] = 0,
    options: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="FIELD=VALUE",
            help="Sets an option of the model, may be given again; a wrong one lists them all.",
        ),
    ] = None,
    title_vectors: Annotated[
        Path | None,
        typer.Option(
            "--title-vectors",
            metavar="FILE",
            help="Word vectors for titles in GloVe's text format, .gz or not (two-tower, tfrs-titles).",
        ),
    ] = None,
    label: Annotated[
        str, typer.Option("--label", metavar="LABEL", help="Label for the checkpoint, given if no other has it yet.")
    ] = STABLE,
    judge_on: Annotated[
        Literal["test", "validation"],
        typer.Option(
            "--judge-on",
            help="validation: to choose options by; the test rows stay untouched. With --holdout leave-last.",
        ),
    ] = "test",
    calibrate: Annotated[
        bool,
        typer.Option(
            "--calibrate/--no-calibrate",
            help="Fit twice where a model cannot tell how sure it is: once to measure its errors.",
        ),
    ] = True,
    report: Annotated[
        bool, typer.Option("--report/--no-report", help="Write report.html beside the checkpoint, to look at.")
    ] = True,
    resume: Annotated[
        bool,
        typer.Option("--resume", help="Go on after the last whole epoch of this very training (two-tower, tfrs-*)."),
    ] = False,
    require_profile: Annotated[
        bool, typer.Option("--require-profile", help="Refuse data in which a user lacks gender, age or occupation.")
    ] = False,
    columns: ColumnsOption = "",
    users: UsersOption = None,
    movies: MoviesOption = None,
    scale: ScaleOption = "",
    max_broken: MaxBrokenOption = DEFAULT_MAX_BROKEN,
    movie_bag: MovieBagOption = None,
) -> None:
    """Makes a checkpoint from data and judges it on rows that it has not seen."""
    options = [*(options or []), *([f"title_vectors={title_vectors}"] if title_vectors is not None else [])]
    # What can be refused at once is refused before minutes of reading.
    parse_options(fit_function(model).options_class, options)
    store = Registry(registry)
    store.require_writable()
    store.label(label)
    require_holdout(holdout, data, judge_on)
    reading = read_options(columns, users, movies, scale, max_broken, movie_bag)
    request = Request(model, holdout, seed, judge_on, options, label, calibrate, report, resume, require_profile)
    require_model_of_processes(model)
    with joined() as processes:
        if not processes.is_first:
            processes.wait()
            take_part(take_snapshot(data, reading), store, request)
            return
        with progress_bar("reading") as progress:
            snapshot = take_snapshot(data, reading)
            if processes.count > 1:
                # What this leaves in the cache the others find there.
                divide(snapshot, holdout or default_holdout(snapshot.data), seed, judge_on)
                processes.wait()
            outcome = train(snapshot, store, request, progress)
    _tell(outcome, store, label)


def evaluate_command(
    data: DataOption,
    registry: RegistryOption,
    checkpoint: CheckpointOption = DEFAULT_CHECKPOINT,
    predictions: Annotated[
        Path | None,
        typer.Option(
            "--predictions", metavar="FILE", help="Also write user_id, movie_id, rating, predicted: .csv or .parquet."
        ),
    ] = None,
    lists: Annotated[
        Path | None,
        typer.Option("--lists", metavar="FILE", help="Also write user_id, rank, movie_id: .csv or .parquet."),
    ] = None,
    length: Annotated[int, typer.Option("-k", min=RANKS, max=500, help="Length of the lists that are judged.")] = RANKS,
    columns: ColumnsOption = "",
    users: UsersOption = None,
    movies: MoviesOption = None,
    scale: ScaleOption = "",
    max_broken: MaxBrokenOption = DEFAULT_MAX_BROKEN,
    movie_bag: MovieBagOption = None,
) -> None:
    """Judges a checkpoint again, on exactly the rows that its training held out."""
    for path in (predictions, lists):
        if path is not None:
            check_table_path(path)
    store = Registry(registry)
    loaded = checkpoints.load(store.path_of(resolve_version(store, checkpoint)))
    checkpoints.self_check(loaded)
    with progress_bar("reading") as progress:
        snapshot = take_snapshot(data, read_options(columns, users, movies, scale, max_broken, movie_bag))
        parts = divide_again(snapshot, loaded.manifest)
        evaluation = evaluate(
            loaded.model,
            snapshot.data,
            parts.train,
            parts.held_out,
            protocol=loaded.manifest.metrics.protocol,
            window=loaded.manifest.history_window,
            ranks=length,
            popularity=loaded.popularity_over(snapshot.data.movies.movie_ids),
            progress=progress,
        )
    _show(loaded.manifest, evaluation.metrics)
    if predictions is not None:
        write_predictions(predictions, snapshot.data, evaluation)
        typer.echo(f"{len(evaluation.held_out):,} predictions: {predictions}")
    if lists is not None:
        write_lists(lists, snapshot.data, evaluation)
        typer.echo(f"{len(evaluation.users):,} lists: {lists}")


def _tell(outcome: Outcome, store: Registry, label: str) -> None:
    if outcome.notes:
        typer.echo(join_notes(outcome.notes))
    _show(outcome.manifest)
    typer.echo(f"checkpoint: {outcome.manifest.version}")
    if (outcome.folder / REPORT_FILE).exists():
        typer.echo(f"report: {outcome.folder / REPORT_FILE}")
    if outcome.labelled:
        typer.echo(f"{label} names it now.")
    else:
        typer.echo(f"{label} still names {store.label(label)}. To serve this one instead:")
        promote = f"python -m trainer promote {outcome.manifest.version} --label {label}"
        typer.echo(f"  {promote} --data DATA --registry {store.path}")


def _show(manifest: Manifest, again: Metrics | None = None) -> None:
    """Prints metrics: those of the manifest, and beside them those that were measured again."""
    metrics = manifest.metrics
    table = Table(title=f"{manifest.model} on {manifest.data_name}, {metrics.protocol}, seed {manifest.seed}")
    table.add_column("metric")
    table.add_column("held out", justify="right")
    if again is not None:
        table.add_column("again", justify="right")
    for name in ("rmse", "mae", "ndcg_at_10", "recall_at_10"):
        values = [getattr(each, name) for each in (metrics, again) if each is not None]
        table.add_row(name, *("none" if value is None else f"{value:.4f}" for value in values))
    for name in ("num_ratings", "num_users"):
        table.add_row(name, *(f"{getattr(each, name):,}" for each in (metrics, again) if each is not None))
    Terminal().print(table)
