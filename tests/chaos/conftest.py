"""The stack that drills break, a drill, and the table of drills at the end."""

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import pytest

from tests.chaos.checkpoints import Trained, train_small
from tests.chaos.drills import Recorder, drilled, print_table
from tests.chaos.load import Load
from tests.chaos.small_disk import Disk, small_disk
from tests.chaos.stack import ChaosStack, running_stack
from tests.chaos.truth import Truth, learn_truth

_TABLE = "drills"
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
async def drill(stack: ChaosStack, truths: dict[int, Truth], record_property: Recorder) -> Drill:
    """Runs a block under steady load, waits until all is well, and holds the counts to what was promised."""
    if id(stack) not in truths:
        truths[id(stack)] = await truth_of(stack)
    return drill_on(stack, truths[id(stack)], record_property)


async def truth_of(stack: ChaosStack) -> Truth:
    """Asks a stack for all right answers, once both services are ready."""
    await stack.features.until_ready()
    await stack.model.until_ready()
    data = stack.trained.snapshot.data
    return await learn_truth(stack.features.address, stack.model.address, data.user_ids, data.movies.movie_ids)


def drill_on(stack: ChaosStack, truth: Truth, record_property: Recorder) -> Drill:
    """Returns drills on a stack; their counts go into the table."""

    @asynccontextmanager
    async def run(name: str) -> AsyncIterator[Load]:
        load = Load(stack.to_features.address, stack.model.address, truth)
        async with drilled(name, load, _TABLE, record_property):
            yield load
        for process in (stack.features, stack.model):
            assert process.log.process.poll() is None, process.log.said()
            bugs = [line for line in process.log.events() if line["event"] == "internal_error"]
            assert not bugs, bugs

    return run


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Prints the table of drills."""
    print_table(terminalreporter, _TABLE)
