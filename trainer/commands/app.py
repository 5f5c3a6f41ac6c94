"""Puts the commands together, and ends each with its exit status. Knows no command by what it does."""

import errno
import sys
from typing import Any

import typer
from marquee.client.credentials import CredentialsError
from typer.core import TyperGroup

from trainer.commands import (
    asking,
    bootstrap,
    compare,
    data,
    inspecting,
    promoting,
    publishing,
    rebuild,
    registry,
    registry_backup,
    training,
    tuning,
)
from trainer.commands.terminal import shown
from trainer.errors import TrainerError
from two_tower.errors import TwoTowerError

_FIRST_STEPS = """First steps:

\b
  python -m trainer download ml-100k    or take a file of ratings of your own
  python -m trainer inspect ml-100k     says what to run next
  python -m trainer COMMAND --help
"""
_DISK_TAKES_NO_MORE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO)


class _Commands(TyperGroup):
    """Shows what a person can act on as one message; everything else is a defect of ours and keeps its traceback."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Refuses words that no command can mean, whichever it is."""
        for place, word in enumerate(args, start=1):
            before = f" after {shown(args[place - 2])}" if place > 1 else ""
            if not word:
                # What a shell makes of a variable that is not set; as a folder it would be the present one.
                raise typer.BadParameter(
                    f"word {place}{before} is empty: leave the option out, or say what it is to be", ctx
                )
            if not _is_text(word):
                # Manifests and tables are UTF-8, and hold the names that a command is given.
                raise typer.BadParameter(f"word {place}{before} is not UTF-8: {word!a}; rename what it names", ctx)
        return super().parse_args(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        """Runs the command that was asked for."""
        try:
            return super().invoke(ctx)
        except (TrainerError, TwoTowerError, CredentialsError) as error:
            print(f"error: {shown(str(error))}", file=sys.stderr)
            raise typer.Exit(getattr(error, "exit_status", TrainerError.exit_status)) from error
        except OSError as error:
            # With a file's name it is about the machine: a folder that is none, a lack of rights. So is a disk that
            # takes no more, which is told by a file that is open already and has no name then.
            if error.filename is None and error.errno not in _DISK_TAKES_NO_MORE:
                raise
            named = "" if error.filename is None else f"{error.filename}: "
            print(f"error: {shown(named)}{error.strerror}", file=sys.stderr)
            raise typer.Exit(TrainerError.exit_status) from error


def _is_text(word: str) -> bool:
    """Tells whether a word of the command line was UTF-8, or had bytes that Python carries as lone surrogates."""
    try:
        word.encode()
    except UnicodeEncodeError:
        return False
    return True


def make_app() -> typer.Typer:
    """Returns the application with all commands."""
    app = typer.Typer(
        name="trainer",
        cls=_Commands,
        help="Rebuilds recommenders from data, proves them, publishes their features, and asks the running services.",
        epilog=_FIRST_STEPS,
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_show_locals=False,
        rich_markup_mode=None,
    )
    for commands in (
        data,
        training,
        tuning,
        compare,
        inspecting,
        registry,
        promoting,
        publishing,
        rebuild,
        asking,
        bootstrap,
        registry_backup,
    ):
        commands.register(app)
    return app
