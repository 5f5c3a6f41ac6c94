"""Runs a command of the trainer as a shell would. Knows how it ended; knows no command."""

from dataclasses import dataclass

from typer.testing import CliRunner

from trainer.commands.app import make_app


@dataclass(frozen=True)
class Ran:
    """How a command ended."""

    status: int
    out: str
    err: str


def run(*arguments: object, columns: int = 200) -> Ran:
    """Runs it in this process, on so wide a terminal; what it raises beyond an exit is raised here."""
    shell = CliRunner(env={"COLUMNS": str(columns), "TERM": "dumb"})
    result = shell.invoke(make_app(), [str(each) for each in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return Ran(result.exit_code, result.stdout, result.stderr)
