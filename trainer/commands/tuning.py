"""The command that searches the options of a model: tune."""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from trainer.commands.data_options import (
    DEFAULT_MAX_BROKEN,
    ColumnsOption,
    DataOption,
    MaxBrokenOption,
    MovieBagOption,
    MoviesOption,
    ScaleOption,
    TwofoldHoldoutOption,
    UsersOption,
    option_words,
    read_options,
)
from trainer.commands.progress_bar import progress_bar
from trainer.commands.terminal import Terminal
from trainer.fits import fit_function
from trainer.fits.options import parse_options
from trainer.search_space import Space, search_space
from trainer.snapshot import take_snapshot
from two_tower.models import MODELS

if TYPE_CHECKING:
    from trainer.tuning import Found


def register(app: typer.Typer) -> None:
    """Adds the command to an application."""
    app.command("tune", short_help="Searches a model's options.")(tune_command)


def tune_command(
    model: Annotated[str, typer.Argument(metavar="MODEL", help=f"Which model: {', '.join(sorted(MODELS))}.")],
    data: DataOption,
    trials: Annotated[int, typer.Option("--trials", min=1, help="In all, those of earlier runs included.")] = 20,
    timeout_s: Annotated[
        float | None, typer.Option("--timeout", metavar="SECONDS", min=0, help="No trial begins after so long.")
    ] = None,
    storage: Annotated[
        Path | None,
        typer.Option("--storage", metavar="FILE", help="Keeps the trials; the same command goes on where it stopped."),
    ] = None,
    metric: Annotated[
        str, typer.Option("--metric", metavar="rmse|ndcg", help="Default: rmse where there are ratings.")
    ] = "",
    holdout: TwofoldHoldoutOption = None,
    seed: Annotated[int, typer.Option("--seed", min=0, max=2**32 - 1, help="Of splits, fits and search.")] = 0,
    search: Annotated[
        list[str] | None,
        typer.Option(
            "--search",
            metavar="OPTION=LOW:HIGH[:log]",
            help="Search this instead, or OPTION=VALUE,VALUE; may be given again.",
        ),
    ] = None,
    options: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="OPTION=VALUE", help="Keep this option as it is; may be given again."),
    ] = None,
    columns: ColumnsOption = "",
    users: UsersOption = None,
    movies: MoviesOption = None,
    scale: ScaleOption = "",
    max_broken: MaxBrokenOption = DEFAULT_MAX_BROKEN,
    movie_bag: MovieBagOption = None,
) -> None:
    """Searches a model's options without ever looking at a test row, and says how to train with the best."""
    # Imported here, since it takes a second that the other commands need not wait for.
    from trainer.tuning import Search, TuningError, require_rows_to_choose_by, tune

    if metric not in ("", "rmse", "ndcg"):
        raise TuningError(f"--metric {metric}: rmse and ndcg are what can be searched by")
    made = fit_function(model)
    fixed = options or []
    parse_options(made.options_class, fixed)
    space = search_space(model, made.options_class, search or ())
    fixed_names = {text.partition("=")[0].strip().replace("-", "_") for text in fixed}
    space = {name: each for name, each in space.items() if name not in fixed_names}
    if not space:
        raise TuningError(f"{model} has no option to search")
    require_rows_to_choose_by(holdout, data)
    with progress_bar("reading") as progress:
        snapshot = take_snapshot(data, read_options(columns, users, movies, scale, max_broken, movie_bag))
        judged_by = metric or ("ndcg" if snapshot.data.scale is None else "rmse")
        found = tune(
            snapshot,
            Search(
                model,
                space,
                fixed,
                "ndcg" if judged_by == "ndcg" else "rmse",
                holdout,
                seed,
                trials,
                timeout_s,
                storage,
            ),
            progress,
        )
    _show(f"{model} on {snapshot.data.name}", found, space)
    before = "" if found.default_value is None else f", with the defaults {found.default_value:.4f}"
    typer.echo(f"{judged_by} on validation rows {found.value:.4f}{before}. The test rows were not looked at. To train:")
    words = ["python", "-m", "trainer", "train", "--model", model, "--data", data, "--holdout", found.holdout]
    words += ["--seed", str(seed), *option_words(columns, users, movies, scale, max_broken, movie_bag)]
    words += [word for text in found.options for word in ("--set", text)]
    typer.echo("  " + " ".join(shlex.quote(word) for word in words) + " --registry registry")


def _show(title: str, found: "Found", space: Space) -> None:
    table = Table(title=f"{title}: best of {found.trials} trials ({found.failed} failed)")
    table.add_column("option")
    table.add_column("best", justify="right")
    table.add_column("searched")
    for text in found.options:
        name, _, value = text.partition("=")
        table.add_row(name, value, str(space.get(name, "fixed")))
    Terminal().print(table)
