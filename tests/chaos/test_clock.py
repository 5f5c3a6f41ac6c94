"""A drill on clocks: those of both services jump by days, ahead and back."""

import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from marquee.client.channel import open_channel
from marquee.v1 import feature_service_pb2 as pb2
from marquee.v1 import feature_service_pb2_grpc

from tests.chaos.checkpoints import Trained
from tests.chaos.conftest import drill_on, truth_of
from tests.chaos.moved_clock import MovedClock
from tests.chaos.stack import ChaosStack, running_stack
from tests.feature_service import messages as make

COMPILER = shutil.which("gcc")
THREE_DAYS_S = 3 * 86_400
pytestmark = [
    pytest.mark.timeout(400),
    pytest.mark.chaos,
    pytest.mark.skipif(COMPILER is None, reason="moves clocks by a library that a C compiler has to make"),
]


@pytest.fixture
def clock(tmp_path: Path) -> MovedClock:
    """The clock of both services."""
    assert COMPILER is not None
    return MovedClock(tmp_path, COMPILER)


@pytest.fixture
def moved_stack(clock: MovedClock, tmp_path: Path, trained: Trained) -> Iterator[ChaosStack]:
    """A stack that goes by that clock."""
    with running_stack(tmp_path, tmp_path, trained, clock.variables()) as stack:
        yield stack


async def watch_now(stack: ChaosStack, user_id: str) -> int:
    """Writes an event of this moment, by our own clock, beside an old one; returns what became of it."""
    event = make.event("now", user_id, stack.trained.snapshot.data.movies.movie_ids[0], 4.0, int(time.time() * 1000))
    old = make.event("old", user_id, stack.trained.snapshot.data.movies.movie_ids[1])
    async with open_channel(stack.features.address) as channel:
        stub = feature_service_pb2_grpc.FeatureServiceStub(channel)
        return (await stub.WriteEvents(make.write(event, old), timeout=60)).results[0].status


async def test_clock_jumps(moved_stack: ChaosStack, clock: MovedClock, record_property: Callable[[str, object], None]):
    """Deadlines, answers and caches do not notice; events from further ahead than a day are refused one by one."""
    drill = drill_on(moved_stack, await truth_of(moved_stack), record_property)
    found = {}
    async with drill("clocks jump by three days") as load:
        for ahead_s in (THREE_DAYS_S, -THREE_DAYS_S, 0):
            clock.move(ahead_s)
            await load.until_answered(75)
            found[ahead_s] = await watch_now(moved_stack, f"user of {ahead_s}")
    assert not load.noticed()
    assert found == {
        THREE_DAYS_S: pb2.EVENT_STATUS_APPLIED,
        -THREE_DAYS_S: pb2.EVENT_STATUS_REFUSED,
        0: pb2.EVENT_STATUS_APPLIED,
    }
