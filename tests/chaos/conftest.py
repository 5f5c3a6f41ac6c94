"""The stack that drills break, a drill, and the table of drills at the end."""

import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import pytest

from tests.chaos.checkpoints import Trained, train_small
from tests.chaos.load import Load
from tests.chaos.small_disk import Disk, small_disk
from tests.chaos.stack import ChaosStack, running_stack
from tests.chaos.truth import Truth, learn_truth

_PROPERTY = "drill"
Drill = Callable[[str], AbstractAsyncContextManager[Load]]


@pytest.fixture(scope="session")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Disk]:
    """Where Redis and the registry keep their data."""
    with small_disk(tmp_path_factory.mktemp("disk")) as disk:
        yield disk


@pytest.fixture(scope="session")
def trained(disk: Disk) -> Trained:
    """A small registry and what it was trained on."""
    return train_small(disk.folder)


@pytest.fixture(scope="session")
def stack(trained: Trained, disk: Disk, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ChaosStack]:
    """One stack for all drills: each has to leave it as it was."""
    with running_stack(tmp_path_factory.mktemp("stack"), disk.folder, trained) as stack:
        yield stack


@pytest.fixture(scope="session")
def truths() -> dict[int, Truth]:
    """Right answers, by stack: learnt before the first drill."""
    return {}


@pytest.fixture
async def drill(stack: ChaosStack, truths: dict[int, Truth], record_property: Callable[[str, object], None]) -> Drill:
    """Runs a block under steady load, waits until all is well, and holds the counts to what was promised."""
    if id(stack) not in truths:
        truths[id(stack)] = await learn_truth(stack)
    return drill_on(stack, truths[id(stack)], record_property)


def drill_on(stack: ChaosStack, truth: Truth, record_property: Callable[[str, object], None]) -> Drill:
    """Returns drills on a stack; their counts go into the table."""

    @asynccontextmanager
    async def run(name: str) -> AsyncIterator[Load]:
        began = time.monotonic()
        async with Load(stack, truth) as load:
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
        record_property(_PROPERTY, {column: str(value) for column, value in row.items()})
        assert not load.lost, load.counts()
        assert load.sent == load.answered + sum(load.refused.values())
        for process in (stack.features, stack.model):
            assert process.log.process.poll() is None, process.log.said()
            bugs = [line for line in process.log.events() if line["event"] == "internal_error"]
            assert not bugs, bugs

    return run


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Prints the table of drills."""
    reports = [report for kind in ("passed", "failed") for report in terminalreporter.stats.get(kind, [])]
    rows = [row for report in reports for name, row in report.user_properties if name == _PROPERTY]
    if not rows:
        return
    terminalreporter.section("drills", sep="-")
    names = list(rows[0])
    for cells in (names, ["---"] * len(names), *([row[name] for name in names] for row in rows)):
        terminalreporter.write_line(f"| {' | '.join(cells)} |")
