"""The commands that fetch, make and look at data: download, synthesize, inspect."""

import typer


def register(app: typer.Typer) -> None:
    """Adds the commands to an application."""
