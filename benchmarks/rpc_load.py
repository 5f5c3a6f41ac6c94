"""Calls an RPC as fast as a number of waiting callers can, from processes of their own. Knows bytes; knows no message.

Callers are asyncio tasks that ask again as soon as they are answered (a closed loop), spread over connections. An
answer counts if its status is OK and it is not empty; anything else ends the measurement. The questions are serialised
before the clock runs, and answers are not parsed: what a caller costs is not what is measured here.
"""

import asyncio
import multiprocessing
import time
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection

import grpc.aio
import numpy as np
import uvloop
from marquee.client.channel import channel_options
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Load:
    """What is asked, and by how many at a time.

    Attributes:
        address: host:port.
        method: Full name of the RPC, for example "/marquee.v1.ModelService/TopK".
        requests: Serialised; drawn in this order, again and again.
        in_flight: Callers who wait at a time.
        connections: They are spread over.
        seconds: How long they ask.
    """

    address: str
    method: str
    requests: Sequence[bytes]
    in_flight: int = 64
    connections: int = 16
    seconds: float = 3.0


@dataclass(frozen=True, slots=True)
class Answered:
    """What came of it.

    Attributes:
        count: Answers.
        latencies_ms: Of each. float64 [count]
        elapsed_s: From the first question to the last answer.
    """

    count: int
    latencies_ms: NDArray[np.float64]
    elapsed_s: float

    def percentile(self, percent: float) -> float:
        """Returns a latency, in milliseconds."""
        return float(np.percentile(self.latencies_ms, percent))


class Caller:
    """A process that loads a server when it is told to; a context manager."""

    def __init__(self) -> None:
        self._ours, theirs = multiprocessing.Pipe()
        self._process = multiprocessing.get_context("spawn").Process(target=_serve, args=(theirs,), daemon=True)

    def __enter__(self) -> "Caller":
        self._process.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ours.send(None)
        self._process.join(10)

    def call(self, load: Load) -> Answered:
        """Loads a server, and returns when that is over.

        Raises:
            RuntimeError: A call failed; says how.
        """
        self._ours.send(load)
        answered = self._ours.recv()
        if isinstance(answered, str):
            raise RuntimeError(answered)
        assert isinstance(answered, Answered)
        return answered


def _serve(pipe: Connection) -> None:
    while (load := pipe.recv()) is not None:
        try:
            pipe.send(uvloop.run(_call(load)))
        except (grpc.aio.AioRpcError, AssertionError) as error:
            pipe.send(f"{load.method}: {error}")


async def _call(load: Load) -> Answered:
    # A subchannel pool each: else all channels to one address share one connection.
    options = [*channel_options(), ("grpc.use_local_subchannel_pool", 1)]
    channels = [grpc.aio.insecure_channel(load.address, options=options) for _ in range(load.connections)]
    methods: list[grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]] = [
        channel.unary_unary(load.method) for channel in channels
    ]
    await asyncio.gather(*(method(load.requests[0], timeout=30) for method in methods))
    latencies: list[float] = []
    began = time.perf_counter()
    until = began + load.seconds
    place = 0

    async def ask_on(method: "grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]") -> None:
        nonlocal place
        while (asked := time.perf_counter()) < until:
            request = load.requests[place % len(load.requests)]
            place += 1
            answer = await method(request, timeout=30)
            assert answer, "an empty answer"
            latencies.append(time.perf_counter() - asked)

    await asyncio.gather(*(ask_on(methods[each % load.connections]) for each in range(load.in_flight)))
    elapsed_s = time.perf_counter() - began
    await asyncio.gather(*(channel.close() for channel in channels))
    return Answered(len(latencies), np.array(latencies) * 1000, elapsed_s)
