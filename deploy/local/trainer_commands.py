"""Runs trainer commands as a person would, and shows each one. Knows command lines; knows no model and no data."""

import shlex
import subprocess
import sys
from pathlib import Path

from rich.console import Console

from deploy.local.processes import StackError
from trainer.data_cache import DATASET_NAMES


def run_trainer(console: Console, *arguments: str) -> None:
    """Shows and runs `python -m trainer ARGUMENTS`.

    Raises:
        StackError: It ended with an error, which it has explained itself.
    """
    console.print(f"\n[dim]$ python -m trainer {shlex.join(arguments)}[/]", highlight=False, soft_wrap=True)
    status = subprocess.run([sys.executable, "-m", "trainer", *arguments], check=False).returncode
    if status != 0:
        raise StackError(f"python -m trainer {arguments[0]} ended with status {status}.")


def make_available(console: Console, data: str | None, synthetic: Path) -> str:
    """Returns data that exists: what was asked for, downloaded if it is a name, or made up where nothing was.

    Args:
        console: Shows the commands.
        data: A folder, a file or the name of a MovieLens set; None for synthetic data.
        synthetic: Folder of the synthetic data; made unless it is there.

    Raises:
        StackError: It cannot be had.
    """
    if data is None:
        if not synthetic.exists():
            run_trainer(console, "synthesize", str(synthetic))
        return str(synthetic)
    if data in DATASET_NAMES and not Path(data).exists():
        run_trainer(console, "download", data)
    return data
