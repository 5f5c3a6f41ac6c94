"""Callers that keep their connections find replicas that were added, and notice nothing of being moved."""

import asyncio
import contextlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest
from marquee.client.channel import open_channel
from marquee.v1 import feature_service_pb2 as fpb
from marquee.v1 import feature_service_pb2_grpc

from service_runtime.health import Health
from service_runtime.server import Server, Service
from service_runtime.settings import ServiceSettings
from tests.chaos.stack import Process
from tests.feature_service import messages as make
from tests.life_cycle.name_server import NameServer
from tests.service_runtime.echo import ECHO, EchoHandlers

pytestmark = pytest.mark.timeout(300)
AGE_S = 1.0
PATIENCE_S = 120.0
CALLERS = 4


@contextmanager
def replica(folder: Path, redis_url: str, address: str = "") -> Iterator[Process]:
    """A feature_service whose callers have to move on after a second."""
    settings = {"FEATURE_REDIS_URL": redis_url, "FEATURE_MAX_CONNECTION_AGE_S": str(AGE_S)}
    process = Process("feature_service", folder, settings)
    if address:
        process.listen_on(address)
    process.start()
    try:
        yield process
        process.stop()
    finally:
        process.end()


class Callers:
    """Callers that ask one question after the other over one channel; a failure ends the test."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        """Stores the channel."""
        self._stub = feature_service_pb2_grpc.FeatureServiceStub(channel)
        self.num_answered = 0

    async def ask_on(self) -> None:
        """Asks until it is cancelled."""
        async with asyncio.TaskGroup() as asking:
            for _ in range(CALLERS):
                asking.create_task(self._ask_on())

    async def _ask_on(self) -> None:
        while True:
            await self._stub.BatchGetUsers(make.users("ann"), timeout=PATIENCE_S)
            self.num_answered += 1
            await asyncio.sleep(0.01)


def answered(process: Process) -> float:
    """Returns how many reads a replica has answered."""
    samples = process.metrics().samples("marquee_rpc_finished_total", method="BatchGetUsers")
    return sum(sample.value for sample in samples)


async def until_it_answers(process: Process, times: int) -> None:
    """Waits until a replica has answered so many reads."""
    async with asyncio.timeout(PATIENCE_S):
        while await asyncio.to_thread(answered, process) < times:  # noqa: ASYNC110  a page tells nobody of changes
            await asyncio.sleep(0.05)


async def test_load_spreads_to_a_replica_that_was_added(redis_url: str, tmp_path: Path):
    """No call fails, the new replica gets its half, and a stream that is under way goes on where it was."""
    with replica(tmp_path, redis_url) as first:
        await first.until_ready()
        port = first.address.rpartition(":")[2]
        # So many lookups that the test need not wait for half a minute.
        options = [("grpc.dns_min_time_between_resolutions_ms", 100)]
        async with (
            NameServer("127.0.0.1") as names,
            open_channel(f"dns://{names.authority}/features.test:{port}", options=options) as channel,
        ):
            feed = feature_service_pb2_grpc.FeatureServiceStub(channel).StreamChanges(fpb.StreamChangesRequest())
            assert isinstance(await feed.read(), fpb.StreamChangesResponse)
            callers = Callers(channel)
            asking = asyncio.create_task(callers.ask_on())
            await until_it_answers(first, 50)
            with replica(tmp_path, redis_url, f"127.0.0.2:{port}") as second:
                await second.until_ready()

                names.addresses.append("127.0.0.2")

                await until_it_answers(second, 50)
                before = answered(first), answered(second)
                await asyncio.sleep(3 * AGE_S)
                after = answered(first), answered(second)
                still = [await feed.read() for _ in range(2)]
                asking.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await asking
                feed.cancel()
    shares = [later - earlier for earlier, later in zip(before, after, strict=True)]
    assert min(shares) > 0.3 * sum(shares)
    assert all(isinstance(answer, fpb.StreamChangesResponse) for answer in still)


async def end_of(stream: "grpc.aio.UnaryStreamCall[bytes, bytes]") -> grpc.StatusCode:
    """Reads a stream to its end, and returns its status."""
    with contextlib.suppress(grpc.aio.AioRpcError):
        while await stream.read() is not grpc.aio.EOF:
            pass
    return await stream.code()


async def test_a_grace_ends_what_never_ends():
    """A stream upon a connection of that age is cut off; a call that comes at the same time is answered."""
    settings = ServiceSettings(max_connection_age_s=0.2, max_connection_age_grace_s=0.2)
    handlers = EchoHandlers()
    handlers.gate = asyncio.Event()
    server = Server(
        [Service(ECHO, handlers)],
        Health([], []),
        listen="127.0.0.1:0",
        drain_timeout_s=1.0,
        options=settings.connections(),
    )
    async with server, open_channel(server.address) as channel:
        stream = channel.unary_stream("/echo.Echo/SayOn")(b"")
        cut = await asyncio.wait_for(end_of(stream), PATIENCE_S)
        handlers.gate.set()
        assert await channel.unary_unary("/echo.Echo/SayBack")(b"", timeout=PATIENCE_S) == b""
    assert cut is grpc.StatusCode.UNAVAILABLE
