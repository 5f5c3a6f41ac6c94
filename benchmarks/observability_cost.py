"""What does it cost a call that it is counted, timed and traced?

Runs the same server, whose one handler answers at once, several times side by side: with nobody told of calls, with
metrics, and with traces of which none, a hundredth or all are recorded. They have turns of so many calls, round by
round, so that other work of the machine falls on all of them. The figure is the processor time of the server a call,
all its threads together, as the kernel counts it in nanoseconds.

A call costs far more than that it is counted, so that the difference drowns on a machine with other work; what counting
alone takes is therefore measured once more, without a server.
"""

import asyncio
import statistics
import sys
import time
from collections.abc import AsyncIterator
from concurrent import futures
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
from google.protobuf import descriptor_pb2, descriptor_pool
from google.protobuf.struct_pb2 import Struct
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc
from rich.console import Console

from benchmarks.record import record
from service_runtime.health import Health
from service_runtime.metrics import Metrics
from service_runtime.observation import Observation
from service_runtime.server import Call, Server, Service
from service_runtime.slow_requests import SlowRequests
from service_runtime.tracing import open_tracing

VARIANTS = {"unobserved": None, "metrics": None, "traces 0": 0.0, "traces 0.01": 0.01, "traces 1": 1.0}
"""By name, which share of the traces is recorded; None traces nothing."""

ROUNDS = 12
CALLS = 800
CALLERS = 8
WARM_UP_CALLS = 800
TURNS_ALONE = 7
CALLS_ALONE = 50_000
PATH = "/idle.Idle/Rest"


class _Idle:
    async def rest(self, request: Struct, call: Call) -> Struct:
        return request


class _Unobserved(Observation):
    """Is told of no call."""

    def method(self, path: str) -> Any:
        return self

    def begin(self, *_: object) -> Any:
        return self

    def end(self, *_: object) -> None:
        pass


class _Sink(trace_service_pb2_grpc.TraceServiceServicer):
    """Takes spans and forgets them."""

    def Export(self, request: Any, context: Any) -> trace_service_pb2.ExportTraceServiceResponse:  # noqa: N802
        return trace_service_pb2.ExportTraceServiceResponse()


def _service() -> Any:
    file = descriptor_pb2.FileDescriptorProto(name="idle.proto", package="idle", syntax="proto3")
    file.dependency.append(Struct.DESCRIPTOR.file.name)
    service = file.service.add(name="Idle")
    service.method.add(name="Rest", input_type=".google.protobuf.Struct", output_type=".google.protobuf.Struct")
    pool = descriptor_pool.Default()
    pool.AddSerializedFile(file.SerializeToString())
    return pool.FindServiceByName("idle.Idle")


async def serve(variant: str, endpoint: str) -> None:
    """Serves until standard input ends."""
    ratio = VARIANTS[variant]
    with open_tracing("idle_service", "" if ratio is None else endpoint, ratio or 0.0) as tracing:
        metrics, slow = Metrics("idle"), SlowRequests(0.5)
        spans = tracing.server_spans if tracing else None
        observation = _Unobserved(metrics) if variant == "unobserved" else Observation(metrics, slow, spans)
        async with Server(
            [Service(_service(), _Idle())],
            Health([], []),
            listen="127.0.0.1:0",
            drain_timeout_s=1.0,
            observation=observation,
        ) as server:
            print(server.address, flush=True)
            await asyncio.to_thread(sys.stdin.read)


def processor_time_s(pid: int) -> float:
    """Returns what the living threads of a process have used, from the scheduler's own count."""
    threads = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((thread / "schedstat").read_text().split()[0]) for thread in threads) / 1e9


async def call(channel: grpc.aio.Channel, num_calls: int) -> None:
    """Makes calls, `CALLERS` at a time."""
    rest: Any = channel.unary_unary(PATH)

    async def caller() -> None:
        for _ in range(num_calls // CALLERS):
            await rest(b"")

    await asyncio.gather(*(caller() for _ in range(CALLERS)))


def counting_alone_us() -> float:
    """Returns the processor time of counting and timing one call, in microseconds: the least of several turns."""
    observed = Observation(Metrics("idle"), SlowRequests(0.5)).method(PATH)
    told = Call(PATH, None, "id")
    turns = []
    for _ in range(TURNS_ALONE):
        began = time.process_time()
        for _ in range(CALLS_ALONE):
            observed.begin(told, 10).end(0, 10, None)
        turns.append((time.process_time() - began) / CALLS_ALONE * 1e6)
    return min(turns)


async def _started(endpoint: str) -> AsyncIterator[tuple[str, asyncio.subprocess.Process, grpc.aio.Channel]]:
    for variant in VARIANTS:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "benchmarks.observability_cost", variant, endpoint,
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        assert process.stdout is not None
        while True:
            # Beside it stand lines of the log.
            line = (await process.stdout.readline()).decode().strip()
            if line.startswith("127."):
                break
        yield variant, process, grpc.aio.insecure_channel(line)


async def measure(endpoint: str) -> dict[str, Any]:
    """Returns microseconds a call of each variant, and what each costs beyond the first."""
    servers = [server async for server in _started(endpoint)]
    for _, _, channel in servers:
        await call(channel, WARM_UP_CALLS)
    rounds: list[dict[str, float]] = []
    for _ in range(ROUNDS):
        took = {}
        for variant, process, channel in servers:
            before = processor_time_s(process.pid)
            await call(channel, CALLS)
            took[variant] = (processor_time_s(process.pid) - before) / CALLS * 1e6
        rounds.append(took)
    for _, process, channel in servers:
        await channel.close()
        # Its standard input ends, and so does it.
        await process.communicate(b"")
    return {
        variant: {
            "us_per_call_median": round(statistics.median(took[variant] for took in rounds), 1),
            "us_more_than_unobserved_median": round(
                statistics.median(took[variant] - took["unobserved"] for took in rounds), 1
            ),
        }
        for variant in VARIANTS
    }


def main() -> None:
    """Measures, and writes the figures down."""
    if len(sys.argv) > 2:
        asyncio.run(serve(sys.argv[1], sys.argv[2]))
        return
    sink = grpc.server(futures.ThreadPoolExecutor(1))
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(_Sink(), sink)  # type: ignore[no-untyped-call]
    endpoint = f"http://127.0.0.1:{sink.add_insecure_port('127.0.0.1:0')}"
    sink.start()
    figures = asyncio.run(measure(endpoint))
    sink.stop(None)
    path = record(
        "observability_cost",
        {"counting_alone_us": round(counting_alone_us(), 2), "rounds": ROUNDS, "calls_a_turn": CALLS, **figures},
    )
    Console().print_json(path.read_text())


if __name__ == "__main__":
    main()
