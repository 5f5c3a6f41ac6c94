"""Says how many calls may wait for our event loop. Knows gRPC's channel arguments and time; knows no RPC by name.

gRPC takes calls off the wire in threads of its own, faster than the event loop sees them: whoever calls too much waits
there, in a queue of thousands, until his deadline has passed, and then costs as much as an answer. So that queue is
bounded by the time that it takes to answer it. From three quarters of the limit on gRPC refuses a growing share, at the
limit everybody; it does so without the loop and the interpreter, with the status CANCELLED and no details. See
docs/decisions/0029-overload-is-refused-by-grpc.md.
"""

import asyncio
import time

import grpc
import grpc.aio

Options = list[tuple[str, int | str]]

FEWEST = 88
"""Also a slow machine refuses none of 64 callers who ask again as soon as they are answered, nor a burst of as many.
With more, everybody would wait for too long under overload: at 1 ms an answer, with 128 half of those who were accepted
waited for more than 200 ms, and many of them had gone by then (docs/experiments.md)."""
MOST = 1000
"""Where gRPC itself begins to refuse."""

_NUM_WARM_UP = 50
_NUM_CALLS = 150
_IN_FLIGHT = 16
_METHOD = "/empty/Call"
_MESSAGE = bytes(60)


def pending_options(limit: int) -> Options:
    """Returns the channel arguments of a server in which at most `limit` calls wait for the loop."""
    return [
        ("grpc.server.max_pending_requests", limit * 3 // 4),
        ("grpc.server.max_pending_requests_hard_limit", limit),
    ]


def limit_for(wait_s: float, call_s: float) -> int:
    """Returns how many calls may wait if nobody should wait longer than `wait_s` and each takes `call_s`."""
    return round(min(MOST, max(FEWEST, wait_s / call_s)))


async def derived_options(limit: int | None, wait_s: float) -> Options:
    """Returns the channel arguments for a limit, or, without one, for a wait on the machine that this is."""
    return pending_options(limit_for(wait_s, await measure_call_s()) if limit is None else limit)


async def measure_call_s() -> float:
    """Returns the processor time of an empty call, both its ends in this process.

    The caller's end stands for what a handler does: together they cost about what an answer costs us
    (benchmarks/results/overload_two-tower-history.json). Processor time, since a machine is often busy when services
    start.
    """
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    server.add_generic_rpc_handlers((_Everything(),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            method: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(_METHOD)
            await _call(method, _NUM_WARM_UP)
            began_s = time.process_time()
            await _call(method, _NUM_CALLS)
            return (time.process_time() - began_s) / _NUM_CALLS
    finally:
        await server.stop(None)


async def _call(method: "grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]", count: int) -> None:
    left = iter(range(count))

    async def call_on() -> None:
        for _ in left:
            await method(_MESSAGE, wait_for_ready=True)

    await asyncio.gather(*(call_on() for _ in range(_IN_FLIGHT)))


class _Everything(grpc.GenericRpcHandler):
    def service(self, details: grpc.HandlerCallDetails) -> "grpc.RpcMethodHandler[bytes, bytes] | None":
        """Returns the one handler of all methods."""
        return grpc.unary_unary_rpc_method_handler(_answer)


async def _answer(request: bytes, context: object) -> bytes:
    return request
