"""A drill on clocks: those of both services jump by days, ahead and back."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from marquee.client.channel import open_channel
from marquee.v1 import feature_service_pb2 as pb2
from marquee.v1 import feature_service_pb2_grpc

from tests.chaos.checkpoints import Trained
from tests.chaos.conftest import drill_on
from tests.chaos.stack import ChaosStack, running_stack
from tests.chaos.truth import learn_truth
from tests.feature_service import messages as make

LIBRARIES = sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))
pytestmark = [
    pytest.mark.timeout(400),
    pytest.mark.chaos,
    pytest.mark.skipif(not LIBRARIES, reason="apt install libfaketime: it moves the clock of a process"),
]


@pytest.fixture
def clock(tmp_path: Path) -> Path:
    """The file that says how far the clocks of the services are off."""
    file = tmp_path / "clock"
    file.write_text("+0\n")
    return file


@pytest.fixture
def moved_stack(clock: Path, tmp_path: Path, trained: Trained) -> Iterator[ChaosStack]:
    """A stack whose clocks the test moves; what measures durations goes on as it does when an operator sets a clock."""
    variables = {
        "LD_PRELOAD": str(LIBRARIES[0]),
        "FAKETIME_TIMESTAMP_FILE": str(clock),
        # All threads of a process see the jump at the same moment.
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }
    with running_stack(tmp_path, tmp_path, trained, variables) as stack:
        yield stack


def move(clock: Path, jump: str) -> None:
    """Sets how far the clocks are off."""
    clock.write_text(f"{jump}\n")


async def watch_now(stack: ChaosStack, user_id: str) -> pb2.EventResult:
    """Writes an event of this moment, by our own clock."""
    event = make.event("now", user_id, stack.trained.snapshot.data.movies.movie_ids[0], 4.0, int(time.time() * 1000))
    async with open_channel(stack.features.address) as channel:
        stub = feature_service_pb2_grpc.FeatureServiceStub(channel)
        return (await stub.WriteEvents(make.write(event, make.event(user_id=user_id)))).results[0]


async def test_clock_jumps(moved_stack: ChaosStack, clock: Path, record_property: Callable[[str, object], None]):
    """Deadlines, answers and caches do not notice; events from further ahead than a day are refused one by one."""
    stack = moved_stack
    drill = drill_on(stack, await learn_truth(stack), record_property)
    async with drill("clocks jump by three days") as load:
        found = []
        for jump in ("+3d", "-3d", "+0"):
            move(clock, jump)
            await load.until_answered(75)
            found.append(await watch_now(stack, f"user of {jump}"))
    assert not load.refused
    assert [result.status for result in found] == [
        pb2.EVENT_STATUS_APPLIED,
        pb2.EVENT_STATUS_REFUSED,
        pb2.EVENT_STATUS_APPLIED,
    ]
