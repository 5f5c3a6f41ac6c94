"""Shows on a terminal how far a long command has come. Knows counts and texts only."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from trainer.commands.terminal import Terminal
from trainer.fits import Progress as Report


class RateColumn(ProgressColumn):
    """Says how many steps a second are made, once there are several."""

    def render(self, task: Task) -> Text:
        """Returns the rate of the last half minute; nothing for steps that take longer than a second."""
        return Text(f"{task.speed:,.0f}/s" if task.speed is not None and task.speed >= 1 else "")


@contextmanager
def progress_bar(first_message: str) -> Iterator[Report]:
    """Gives a function to report progress to; draws on the error stream, so that output can be piped."""
    bar = Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TaskProgressColumn(),
        RateColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=Terminal(stderr=True),
        transient=True,
    )
    with bar:
        task = bar.add_task(first_message, total=None)

        def report(done: int, total: int, message: str, figures: Mapping[str, float] | None = None) -> None:
            bar.update(task, completed=done, total=total, description=message)

        yield report
