"""The commands that hold models against each other: compare, coldstart."""

from pathlib import Path
from typing import Annotated, Literal

import typer

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
from trainer.comparison.cold_start import ColdStart
from trainer.comparison.cold_table import render_new_movies, render_new_users
from trainer.comparison.comparing import (
    Comparison,
    Plan,
    lay_out,
    make_tasks,
    require_reference,
    require_rows_to_judge,
)
from trainer.comparison.comparing import compare as run_comparison
from trainer.comparison.contender import SYNTAX, parse_contenders, parse_program, require_unique
from trainer.comparison.notebook_protocol import compare_notebooks, render_notebooks, require_own_splits
from trainer.comparison.plot import draw
from trainer.comparison.runner import Reading, run_tasks
from trainer.comparison.seeds import parse_seeds
from trainer.comparison.table import render
from trainer.errors import TrainerError
from trainer.snapshot import default_holdout, take_snapshot
from two_tower.models import MODELS

_MODELS = ", ".join(sorted(MODELS))

OutOption = Annotated[
    Path, typer.Option("--out", metavar="FILE.md", help="Where the table goes; the plot goes beside it.")
]
SeedsOption = Annotated[str, typer.Option("--seeds", metavar="0,1,.. or 0-4", help="Seeds of split and fit.")]
ReferenceOption = Annotated[
    str, typer.Option("--reference", metavar="NAME", help="Which of the models the others are held against.")
]
WorkOption = Annotated[
    Path | None,
    typer.Option(
        "--work",
        metavar="DIR",
        help="Where answers are kept, to go on or build the table again. Default: beside --out.",
    ),
]
JobsOption = Annotated[int, typer.Option("--jobs", min=1, max=64, help="Fits at a time, each a process of its own.")]
AnyCodeOption = Annotated[
    bool, typer.Option("--any-code", help="Also take kept answers of other code; the table names the commits.")
]


class OutFileError(TrainerError):
    """The table cannot be written there."""


def register(app: typer.Typer) -> None:
    """Adds the commands to an application."""
    app.command("compare", short_help="Holds models against each other on the same rows.")(compare_command)
    app.command("coldstart", short_help="Asks models about new users and new movies.")(coldstart_command)


def compare_command(
    data: DataOption,
    out: OutOption,
    models: Annotated[
        str, typer.Option("--models", metavar="A,B,..", help=f"Each {SYNTAX}. Models: {_MODELS}. Default: all.")
    ] = "",
    protocol: Annotated[
        Literal["common", "notebook"],
        typer.Option(
            "--protocol",
            help="common: the same rows for all. notebook: each model as its notebook had it, and marquee.",
        ),
    ] = "common",
    holdout: HoldoutOption = None,
    seeds: SeedsOption = "0",
    programs: Annotated[
        list[str] | None,
        typer.Option(
            "--program",
            metavar="NAME=COMMAND",
            help="Somebody else's program, on the same rows (trainer/comparison/outsider.py); may be given again.",
        ),
    ] = None,
    reference: ReferenceOption = "marquee",
    jobs: JobsOption = 1,
    work: WorkOption = None,
    any_code: AnyCodeOption = False,
    columns: ColumnsOption = "",
    users: UsersOption = None,
    movies: MoviesOption = None,
    scale: ScaleOption = "",
    max_broken: MaxBrokenOption = DEFAULT_MAX_BROKEN,
    movie_bag: MovieBagOption = None,
) -> None:
    """Fits several models on the same rows and writes a table of how good they are, and how sure that is."""
    contenders = parse_contenders(models) if models else parse_contenders(",".join(MODELS))
    contenders += [parse_program(text) for text in programs or []]
    require_unique(contenders)
    numbers = parse_seeds(seeds)
    _require_writable(out)
    # What can be refused at once is refused before minutes of reading.
    if protocol == "notebook":
        require_own_splits(holdout)
    else:
        require_reference(reference, contenders)
        require_rows_to_judge(holdout, data)
    snapshot = take_snapshot(data, read_options(columns, users, movies, scale, max_broken, movie_bag))
    reading = _reading(data, columns, users, movies, scale, max_broken, movie_bag)
    cells = work or out.with_suffix(".cells")
    if protocol == "notebook":
        lines = compare_notebooks(
            snapshot, reading, contenders, numbers, holdout, cells, jobs=jobs, any_code=any_code, say=typer.echo
        )
        out.write_text(render_notebooks(snapshot.data.name, lines))
        typer.echo(f"table: {out}")
        return
    plan = Plan(contenders, holdout or default_holdout(snapshot.data), numbers, reference)
    found = run_comparison(snapshot, reading, plan, cells, jobs=jobs, any_code=any_code, say=typer.echo)
    picture = out.with_suffix(".svg")
    drawn = draw(found, picture)
    out.write_text(render(found, plot=picture.name if drawn else None))
    typer.echo(f"table: {out}" + (f"\nplot: {picture}" if drawn else ""))
    _end(found)


def coldstart_command(
    data: DataOption,
    out: OutOption,
    models: Annotated[
        str, typer.Option("--models", metavar="A,B,..", help=f"Each {SYNTAX}. Models: {_MODELS}.")
    ] = "marquee,bias",
    user_share: Annotated[
        float, typer.Option("--users-share", min=0.001, max=0.9, help="Share of users that are held out.")
    ] = 0.1,
    movie_share: Annotated[
        float, typer.Option("--movies-share", min=0.001, max=0.9, help="Share of movies that are held out.")
    ] = 0.05,
    seeds: SeedsOption = "0",
    reference: ReferenceOption = "marquee",
    jobs: JobsOption = 1,
    work: WorkOption = None,
    any_code: AnyCodeOption = False,
    columns: ColumnsOption = "",
    users: UsersOption = None,
    movies: MoviesOption = None,
    scale: ScaleOption = "",
    max_broken: MaxBrokenOption = DEFAULT_MAX_BROKEN,
    movie_bag: MovieBagOption = None,
) -> None:
    """Asks models about users and movies that they were not fitted on, of whom 0, 1, 5, 20 or all ratings are told."""
    contenders = parse_contenders(models)
    numbers = parse_seeds(seeds)
    _require_writable(out)
    require_reference(reference, contenders)
    snapshot = take_snapshot(data, read_options(columns, users, movies, scale, max_broken, movie_bag))
    reading = _reading(data, columns, users, movies, scale, max_broken, movie_bag)
    plans = [
        Plan(contenders, str(ColdStart("new-users", user_share)), numbers, reference),
        Plan(contenders, str(ColdStart("new-movies", movie_share)), numbers, reference),
    ]
    tasks = [make_tasks(snapshot, plan) for plan in plans]
    cells = work or out.with_suffix(".cells")
    outcomes = [run_tasks(cells, some, reading, jobs=jobs, any_code=any_code, say=typer.echo) for some in tasks]
    name = snapshot.data.name
    views = list(outcomes[0].cells[0].views) if outcomes[0].cells else []
    by_known = {view: lay_out(plans[0], name, outcomes[0], view) for view in views}
    new_movies = lay_out(plans[1], name, outcomes[1])
    out.write_text(render_new_users(by_known) + "\n" + render_new_movies(new_movies))
    typer.echo(f"table: {out}")
    for found in (*by_known.values(), new_movies):
        _end(found)


def _end(found: Comparison) -> None:
    if found.failures:
        raise typer.Exit(1)


def _require_writable(out: Path) -> None:
    """Refuses a place before the work is done whose result would go there.

    Raises:
        OutFileError: It does not end in .md, or its folder does not exist.
    """
    if out.suffix != ".md":
        raise OutFileError(f"--out {out}: the table is Markdown; give a name that ends in .md")
    if not out.absolute().parent.is_dir():
        raise OutFileError(f"--out {out}: there is no folder {out.absolute().parent}")


def _reading(
    data: str,
    columns: str,
    users: Path | None,
    movies: Path | None,
    scale: str,
    max_broken: float,
    movie_bags: list[str] | None,
) -> Reading:
    # A process of its own may run elsewhere: what is a path must not depend on where.
    return Reading(
        str(Path(data).absolute()) if Path(data).exists() else data,
        columns,
        str(users.absolute()) if users else "",
        str(movies.absolute()) if movies else "",
        scale,
        max_broken,
        tuple(movie_bags or ()),
    )
