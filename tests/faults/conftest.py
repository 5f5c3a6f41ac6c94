"""Prints what the tests of faults counted, also where they ran in several processes."""

from collections.abc import Callable, Mapping

import pytest

_PROPERTY = "fault counts"

Row = Mapping[str, object]
Tell = Callable[[Row], None]


@pytest.fixture
def tell(record_property) -> Tell:
    """Takes the counts of one run: a row of the table."""
    return lambda row: record_property(_PROPERTY, {name: str(value) for name, value in row.items()})


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Prints the table."""
    reports = [report for kind in ("passed", "failed") for report in terminalreporter.stats.get(kind, [])]
    rows = [row for report in reports for name, row in report.user_properties if name == _PROPERTY]
    if not rows:
        return
    terminalreporter.section("what faults cost", sep="-")
    names = list(rows[0])
    for cells in (names, ["---"] * len(names), *([row[name] for name in names] for row in rows)):
        terminalreporter.write_line(f"| {' | '.join(cells)} |")
