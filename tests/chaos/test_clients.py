"""Drills on clients: some flood, never read, cancel everything, send garbage, hold thousands of idle connections."""

import asyncio
import json
import os
import random
import resource
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import grpc
import pytest
from marquee.client.channel import open_channel
from marquee.client.errors import CallError
from marquee.v1 import feature_service_pb2 as fpb
from marquee.v1 import model_service_pb2 as pb
from marquee.v1.model_service_pb2_grpc import ModelServiceStub

from tests.chaos import raw_http2
from tests.chaos.conftest import Drill
from tests.chaos.flood import ANSWERED
from tests.chaos.load import Load
from tests.chaos.stack import ChaosStack, Process
from tests.feature_service import messages as make

pytestmark = [pytest.mark.timeout(400), pytest.mark.chaos]
TOP_K = "/marquee.v1.ModelService/TopK"
READ = "/marquee.v1.FeatureService/BatchGetUsers"
STREAM = "/marquee.v1.FeatureService/StreamChanges"
FLOOD_S = 4.0
NUM_IDLE = 5000
NUM_DEAF = 200
DEAF_AT_ONCE = 10
NUM_CANCELLED = 2000
# Of sockets and files that a service opens for reasons of its own meanwhile.
SPARE_FILES = 40


def top_k(user_id: str) -> pb.TopKRequest:
    """Returns a request that takes some work."""
    return pb.TopKRequest(user=pb.UserSelector(user_id=user_id), k=50)


def num_files(process: Process) -> int:
    """Returns how many files and sockets a service has open."""
    return len(os.listdir(f"/proc/{process.log.process.pid}/fd"))


@asynccontextmanager
async def leaving_nothing(load: Load, *processes: Process) -> AsyncIterator[None]:
    """Holds services to closing what the block made them open."""
    before = [num_files(process) for process in processes]
    yield
    for process, files in zip(processes, before, strict=True):
        await load.until(lambda: num_files(process) <= files + SPARE_FILES, "what callers left is closed")  # noqa: B023


async def test_clients_that_flood(stack: ChaosStack, drill: Drill):
    """Hundreds of callers ask for 200 lists at a time and come back at once: what cannot be answered is refused."""
    async with drill("clients flood") as load, leaving_nothing(load, stack.model):
        command = [sys.executable, "-m", "tests.chaos.flood", stack.model.address, str(FLOOD_S)]
        flooding = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
        told, _ = await flooding.communicate()
        outcomes = json.loads(told)
        for code, reason, count in outcomes:
            if code == ANSWERED:
                load.count_answered(count)
            else:
                load.count_refused("flood", CallError.of(grpc.StatusCode[code], "", reason=reason), count)
    assert flooding.returncode == 0
    assert sum(count for code, _, count in outcomes if code == "RESOURCE_EXHAUSTED") > 0
    assert sum(count for code, _, count in outcomes if code == ANSWERED) > 0


async def test_clients_that_never_read(stack: ChaosStack, drill: Drill):
    """They ask for lists and streams and take no byte of them; nobody else waits for that."""
    asked = {
        stack.model.address: raw_http2.call(1, TOP_K, raw_http2.message(top_k("deaf").SerializeToString())),
        stack.features.address: raw_http2.call(
            1, STREAM, raw_http2.message(fpb.StreamChangesRequest().SerializeToString())
        ),
    }
    async with drill("clients never read") as load, leaving_nothing(load, stack.model, stack.features):
        deaf = []
        for address, call in asked.items():
            for number in range(NUM_DEAF):
                _, writer = await connected(address)
                writer.write(raw_http2.PREFACE + raw_http2.settings(window=0) + call)
                deaf.append(writer)
                # A few at a time: so many calls at once would be a flood, which is another drill.
                if number % DEAF_AT_ONCE == 0:
                    await load.until_answered(2)
        await load.until_answered(75)
        for writer in deaf:
            writer.transport.abort()
    assert not load.noticed()


async def test_clients_that_cancel_everything(stack: ChaosStack, drill: Drill):
    """Each call is cancelled some milliseconds after it was made: what it began is let go of."""
    rng = random.Random(1)
    async with drill("clients cancel everything") as load, open_channel(stack.model.address) as channel:
        stub = ModelServiceStub(channel)
        for first in range(0, NUM_CANCELLED, 50):
            calls = [stub.TopK(top_k(f"fickle-{first + number}"), timeout=10) for number in range(50)]
            for call in calls:
                asyncio.get_running_loop().call_later(rng.uniform(0, 0.02), call.cancel)
            await asyncio.gather(*(_ended(call) for call in calls))
        await load.until_answered(25)
        in_flight = stack.model.in_flight("TopK")
    assert in_flight < 50


async def _ended(call: "grpc.aio.UnaryUnaryCall[pb.TopKRequest, pb.TopKResponse]") -> None:
    with suppress(asyncio.CancelledError, grpc.aio.AioRpcError):
        await call


async def test_clients_that_send_garbage(stack: ChaosStack, drill: Drill):
    """No bytes end a process, wake a bug or disturb others; who sends them is hung up on or refused."""
    rng = random.Random(2)
    ways = [
        (stack.model, TOP_K, top_k("g").SerializeToString()),
        (stack.features, READ, make.users("g").SerializeToString()),
    ]
    async with drill("clients send garbage") as load, leaving_nothing(load, stack.model, stack.features):
        for process, path, request in ways:
            for make_content in raw_http2.garbage(path, request).values():
                contents = [make_content(rng) for _ in range(5)]
                await asyncio.gather(*(raw_http2.send(process.address, content) for content in contents))
            right = raw_http2.PREFACE + raw_http2.settings() + raw_http2.call(1, path, raw_http2.message(request))
            # So that what was refused above was refused for what is wrong with it.
            assert b"grpc-status" in await raw_http2.send(process.address, right)
        await load.until_answered(25)


async def test_clients_that_hold_idle_connections(stack: ChaosStack, drill: Drill):
    """Thousands that connect and ask nothing, half of them without a word; others are answered meanwhile."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    # Both ends of a connection are files; above the hard limit only root raises it, and fewer would be another drill.
    if hard < 2 * NUM_IDLE:
        pytest.skip(f"this user may have {hard} files open; ulimit -n")
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    resource.prlimit(stack.model.log.process.pid, resource.RLIMIT_NOFILE, (hard, hard))
    try:
        async with drill("clients hold 5,000 idle connections") as load, leaving_nothing(load, stack.model):
            idle = []
            for number in range(NUM_IDLE):
                _, writer = await connected(stack.model.address)
                if number % 2:
                    writer.write(raw_http2.PREFACE + raw_http2.settings())
                idle.append(writer)
            await load.until_answered(75)
            assert num_files(stack.model) > NUM_IDLE
            for writer in idle:
                writer.transport.abort()
        assert not load.noticed()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def connected(address: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Connects to host:port."""
    host, _, port = address.rpartition(":")
    return await asyncio.open_connection(host, int(port))
