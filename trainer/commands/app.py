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
from trainer.errors import TrainerError
from two_tower.errors import TwoTowerError

_DISK_TAKES_NO_MORE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO)


class _Commands(TyperGroup):
    """Shows what a person can act on as one message; everything else is a defect of ours and keeps its traceback."""

    def invoke(self, ctx: Any) -> Any:
        """Runs the command that was asked for."""
        try:
            return super().invoke(ctx)
        except (TrainerError, TwoTowerError, CredentialsError) as error:
            print(f"error: {error}", file=sys.stderr)
            raise typer.Exit(getattr(error, "exit_status", TrainerError.exit_status)) from error
        except OSError as error:
            # With a file's name it is about the machine: a folder that is none, a lack of rights. So is a disk that
            # takes no more, which is told by a file that is open already and has no name then.
            if error.filename is None and error.errno not in _DISK_TAKES_NO_MORE:
                raise
            named = "" if error.filename is None else f"{error.filename}: "
            print(f"error: {named}{error.strerror}", file=sys.stderr)
            raise typer.Exit(TrainerError.exit_status) from error


def make_app() -> typer.Typer:
    """Returns the application with all commands."""
    app = typer.Typer(
        name="trainer",
        cls=_Commands,
        help="Rebuilds recommenders from data, proves them, publishes their features, and asks the running services.",
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
        promoting,
        publishing,
        rebuild,
        asking,
        registry,
        registry_backup,
        bootstrap,
    ):
        commands.register(app)
    return app
