"""The options by which every command is told its data. Knows their texts; reads nothing."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from trainer.readers.read_options import ReadOptions, parse_columns, parse_scale

PANEL = "Data"

_DATA = (
    "Folder, zip archive or ratings file; the name of a downloaded data set (ml-100k, ml-1m, ...); or a folder of "
    "snapshots/ in a registry."
)
_HOLDOUT = (
    "temporal:F each user's latest share F; newest:F the latest of all; after:MS all after a moment, in epoch ms; "
    "leave-last each user's latest; random:F a share F of all, drawn; torch:F likewise, as PyTorch draws; every:N each "
    "N-th row of the file; a file that lists them; or none."
)
_DEFAULT_HOLDOUT = "Default: temporal:0.1, or random:0.1 without times."

DataOption = Annotated[
    str,
    typer.Option(
        "--data",
        metavar="DATA",
        help=_DATA,
        rich_help_panel=PANEL,
    ),
]
DataArgument = Annotated[
    str,
    typer.Argument(
        metavar="DATA",
        help=_DATA,
    ),
]
ColumnsOption = Annotated[
    str,
    typer.Option(
        "--columns",
        metavar="ROLE=NAME,...",
        help="Which column plays which role, e.g. user=uid,movie=film,rating=stars,time=ts; rating= means none.",
        rich_help_panel=PANEL,
    ),
]
UsersOption = Annotated[
    Path | None,
    typer.Option("--users", metavar="FILE", help="File of users, if not beside the ratings.", rich_help_panel=PANEL),
]
MoviesOption = Annotated[
    Path | None,
    typer.Option("--movies", metavar="FILE", help="File of movies, if not beside the ratings.", rich_help_panel=PANEL),
]
ScaleOption = Annotated[
    str,
    typer.Option(
        "--scale",
        metavar="LOW:HIGH:STEP",
        help="Rating scale, e.g. 1:10:1; detected if not stated.",
        rich_help_panel=PANEL,
    ),
]
MaxBrokenOption = Annotated[
    float,
    typer.Option(
        "--max-broken",
        min=0.0,
        max=1.0,
        help="Share of a file's rows that may be skipped as broken before it is refused.",
        rich_help_panel=PANEL,
    ),
]

MovieBagOption = Annotated[
    list[str] | None,
    typer.Option(
        "--movie-bag",
        metavar="COLUMN",
        help='Column of the movies file with further categories, as "Tom Hanks|Meg Ryan"; may be given again.',
        rich_help_panel=PANEL,
    ),
]

HoldoutOption = Annotated[
    str | None,
    typer.Option(
        "--holdout",
        metavar="RULE",
        help=f"Which rows are kept back to judge by. {_HOLDOUT} {_DEFAULT_HOLDOUT}",
    ),
]
TwofoldHoldoutOption = Annotated[
    str | None,
    typer.Option(
        "--holdout",
        metavar="RULE",
        help="Which rows are kept back as a test that is never looked at, and of the rest by the same rule to choose "
        f"by. {_HOLDOUT.removesuffix('; or none.')}. {_DEFAULT_HOLDOUT}",
    ),
]

DEFAULT_MAX_BROKEN = ReadOptions().max_broken_share


def read_options(
    columns: str = "",
    users: Path | None = None,
    movies: Path | None = None,
    scale: str = "",
    max_broken: float = DEFAULT_MAX_BROKEN,
    movie_bags: Sequence[str] | None = None,
) -> ReadOptions:
    """Builds what the readers take from the texts of the options.

    Raises:
        DataError: `columns` or `scale` is malformed.
    """
    return ReadOptions(
        columns=parse_columns(columns),
        users_file=users,
        movies_file=movies,
        scale=parse_scale(scale) if scale else None,
        max_broken_share=max_broken,
        movie_bags=tuple(dict.fromkeys(movie_bags or ())),
    )


def option_words(
    columns: str,
    users: Path | None,
    movies: Path | None,
    scale: str,
    max_broken: float,
    movie_bags: Sequence[str] | None = None,
) -> list[str]:
    """Returns the options as words of a command line, those at their default left out."""
    stated = {"--columns": columns, "--users": users, "--movies": movies, "--scale": scale}
    words = [word for name, value in stated.items() if value for word in (name, str(value))]
    words += [word for name in movie_bags or () for word in ("--movie-bag", name)]
    return words if max_broken == DEFAULT_MAX_BROKEN else [*words, "--max-broken", f"{max_broken:g}"]
