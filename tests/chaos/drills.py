"""A drill: a block under steady load, whose counts are held to what was promised. Knows no stack and no fault."""

import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from tests.chaos.load import Load

Recorder = Callable[[str, object], None]


@asynccontextmanager
async def drilled(name: str, load: Load, table: str, record_property: Recorder) -> AsyncIterator[Load]:
    """Runs a block under load, waits until all is well, and writes the counts down as a row of a table."""
    began = time.monotonic()
    async with load:
        yield load
        await load.until_well()
        await load.finish()
    row = {
        "drill": name,
        "seconds": f"{time.monotonic() - began:.0f}",
        "sent": load.sent,
        "answered": load.answered,
        "refused": sum(load.refused.values()),
        "refused with": ", ".join(f"{status} {count}" for status, count in load.refused.most_common()) or "-",
        "lost": len(load.lost),
    }
    record_property(table, {column: str(value) for column, value in row.items()})
    assert not load.lost, load.counts()
    assert load.sent == load.answered + sum(load.refused.values())


def print_table(terminalreporter: pytest.TerminalReporter, table: str) -> None:
    """Prints the drills that were written down for a table, if there are any."""
    reports = [report for kind in ("passed", "failed") for report in terminalreporter.stats.get(kind, [])]
    rows = [row for report in reports for name, row in report.user_properties if name == table]
    if not rows:
        return
    terminalreporter.section(table, sep="-")
    names = list(rows[0])
    for cells in (names, ["---"] * len(names), *([row[name] for name in names] for row in rows)):
        terminalreporter.write_line(f"| {' | '.join(cells)} |")
