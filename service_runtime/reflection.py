"""Answers gRPC reflection to those who may call. Knows the contract as protobuf does; knows no RPC by name."""

from collections.abc import AsyncIterable, Sequence

import grpc.aio
from grpc_reflection.v1alpha import reflection, reflection_pb2

from service_runtime.calls import abort, read_call, translate
from service_runtime.errors import Unauthenticated
from service_runtime.security import Callers

SERVICE_NAME: str = reflection.SERVICE_NAME
_PATH = f"/{SERVICE_NAME}/ServerReflectionInfo"


class GuardedReflection(reflection.aio.ReflectionServicer):  # type: ignore[misc]
    """What grpcio-reflection answers, to callers whose token is known; what else their tokens allow plays no part."""

    def __init__(self, service_names: Sequence[str], callers: Callers) -> None:
        """Stores what is shown to whom."""
        super().__init__([*service_names, SERVICE_NAME])
        self._callers = callers

    async def ServerReflectionInfo(  # noqa: N802  gRPC calls it so
        self,
        request_iterator: AsyncIterable[reflection_pb2.ServerReflectionRequest],
        context: grpc.aio.ServicerContext[bytes, bytes],
    ) -> AsyncIterable[reflection_pb2.ServerReflectionResponse]:
        """Answers questions about the contract."""
        call, caller = read_call(_PATH, context, self._callers)
        try:
            caller.authenticate()
        except Unauthenticated as error:
            await abort(context, translate(error, call))
        async for reply in super().ServerReflectionInfo(request_iterator, context):
            yield reply
