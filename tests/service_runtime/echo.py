"""A service that says back what it is told: echo.Echo, with SayBack, Struct to Struct, and SayOn, to many of them."""

import asyncio
from collections.abc import AsyncIterator

from google.protobuf import descriptor_pb2, descriptor_pool
from google.protobuf.struct_pb2 import Struct

from service_runtime.server import Call


def _echo_service():
    file = descriptor_pb2.FileDescriptorProto(name="echo.proto", package="echo", syntax="proto3")
    file.dependency.append(Struct.DESCRIPTOR.file.name)
    service = file.service.add(name="Echo")
    struct = ".google.protobuf.Struct"
    service.method.add(name="SayBack", input_type=struct, output_type=struct)
    service.method.add(name="SayOn", input_type=struct, output_type=struct, server_streaming=True)
    pool = descriptor_pool.Default()
    pool.AddSerializedFile(file.SerializeToString())
    return pool.FindServiceByName("echo.Echo")


ECHO = _echo_service()


class EchoHandlers:
    """Answers with the request, after what the test told it to do."""

    def __init__(self):
        self.error: Exception | None = None
        self.gate: asyncio.Event | None = None
        self.entered = asyncio.Event()
        self.left = asyncio.Event()
        self.calls: list[Call] = []

    async def say_back(self, request: Struct, call: Call) -> Struct:
        self.calls.append(call)
        self.entered.set()
        if self.gate is not None:
            await self.gate.wait()
        if self.error is not None:
            raise self.error
        return request

    async def say_on(self, request: Struct, call: Call) -> AsyncIterator[Struct]:
        """Says it three times, or for ever if there is a gate; then fails if it was told to."""
        self.calls.append(call)
        try:
            for _ in range(3):
                yield request
            while self.gate is not None:
                yield request
                await asyncio.sleep(0)
            if self.error is not None:
                raise self.error
        finally:
            self.left.set()
