"""Runs trainer commands as a person would, and shows each one. Knows command lines; knows no model and no data."""

import shlex
import subprocess
import sys

from rich.console import Console

from deploy.local.processes import StackError


def run_trainer(console: Console, *arguments: str) -> None:
    """Shows and runs `python -m trainer ARGUMENTS`.

    Raises:
        StackError: It ended with an error, which it has explained itself.
    """
    console.print(f"\n[dim]$ python -m trainer {shlex.join(arguments)}[/]", highlight=False, soft_wrap=True)
    status = subprocess.run([sys.executable, "-m", "trainer", *arguments], check=False).returncode
    if status != 0:
        raise StackError(f"python -m trainer {arguments[0]} ended with status {status}.")
