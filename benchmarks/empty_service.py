"""A gRPC server that does nothing: what every answer in this stack costs at least.

    python -m benchmarks.empty_service HOST:PORT

grpc.aio on uvloop, one generic handler that answers every call with the same few bytes, and grpc.health.v1.
"""

import asyncio
import signal
import sys

import grpc
import grpc.aio
import uvloop
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import aio as health

ANSWER = bytes(60)
"""About as long as an answer of PredictRating."""


class _Everything(grpc.GenericRpcHandler):
    def service(self, details: grpc.HandlerCallDetails) -> "grpc.RpcMethodHandler[bytes, bytes] | None":
        """Returns the one handler of all methods but health's."""
        if details.method.startswith("/grpc.health"):
            return None
        return grpc.unary_unary_rpc_method_handler(_answer)


async def _answer(request: bytes, context: object) -> bytes:
    return ANSWER


async def _serve(address: str) -> None:
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    servicer = health.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    server.add_generic_rpc_handlers((_Everything(),))
    server.add_insecure_port(address)
    await servicer.set("", health_pb2.HealthCheckResponse.SERVING)
    await server.start()
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    await stop.wait()
    await server.stop(1)


if __name__ == "__main__":
    uvloop.run(_serve(sys.argv[1]))
