"""Turns handlers into what gRPC calls: bytes in, bytes out, errors translated, every call counted. Knows no port.

Parsing happens here because grpc.aio answers UNKNOWN with the exception's text when its own parsing fails.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from typing import Any

import grpc.aio
from google.protobuf import message_factory
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import Message
from google.rpc import code_pb2

from service_runtime.calls import Call, abort, parse, read_call, translate
from service_runtime.errors import ResourceExhausted, Unavailable
from service_runtime.observation import Observation
from service_runtime.security import Callers

Handler = Callable[[Any, Call], Awaitable[Message]]
StreamHandler = Callable[[Any, Call], AsyncGenerator[Message, None]]
Context = grpc.aio.ServicerContext[bytes, bytes]

# A caller who reads none of his stream for so long is cut off; what waits for him is one window of HTTP/2.
_STALLED_AFTER_S = 20.0


class Behaviours:
    """The calls of a server.

    Attributes:
        draining: Set once new calls are refused.
        idle: Set once no unary call is under way any more, while draining.
        streams: The streams under way.
        num_running: Unary calls under way.
        num_taken: Calls that ever began.
    """

    def __init__(self, observation: Observation, callers: Callers) -> None:
        """Stores who is told of each call, and who may call."""
        self._observation = observation
        self._callers = callers
        self.draining = asyncio.Event()
        self.idle = asyncio.Event()
        self.streams: set[asyncio.Task[Any]] = set()
        self.num_running = 0
        self.num_taken = 0

    def unary(self, method: MethodDescriptor, handler: Handler) -> Callable[[bytes, Context], Awaitable[bytes]]:
        """Returns the behaviour of an RPC with one answer."""
        request_type = message_factory.GetMessageClass(method.input_type)
        path = f"/{method.containing_service.full_name}/{method.name}"
        observed = self._observation.method(path)

        async def behaviour(payload: bytes, context: Context) -> bytes:
            call, caller = read_call(path, context, self._callers)
            self.num_running += 1
            self.num_taken += 1
            watched = observed.begin(call, len(payload))
            request: Message | None = None
            answer = b""
            code = code_pb2.CANCELLED
            entered = False
            try:
                if self.draining.is_set():
                    raise _shutting_down()
                caller.enter(path, len(payload))
                entered = True
                request = parse(request_type, payload)
                answer = (await handler(request, call)).SerializeToString()
                code = code_pb2.OK
                return answer
            except Exception as error:  # noqa: BLE001  every failure of a handler is translated here, nowhere else
                status = translate(error, call)
                code = status.code
                await abort(context, status)
            finally:
                if entered:
                    caller.leave()
                watched.end(_as_seen_by_caller(code, call), len(answer), request)
                self.num_running -= 1
                self.note_idle()

        return behaviour

    def stream(self, method: MethodDescriptor, handler: StreamHandler) -> Callable[[bytes, Context], Awaitable[None]]:
        """Returns the behaviour of an RPC that streams its answers; a stream ends as soon as the server leaves."""
        request_type = message_factory.GetMessageClass(method.input_type)
        path = f"/{method.containing_service.full_name}/{method.name}"
        observed = self._observation.stream(path)

        async def behaviour(payload: bytes, context: Context) -> None:
            call, caller = read_call(path, context, self._callers)
            self.num_taken += 1
            watched = observed.begin(call, len(payload))
            leaving = asyncio.ensure_future(self.draining.wait())
            task = asyncio.current_task()
            assert task is not None
            self.streams.add(task)
            writing = None
            code = code_pb2.CANCELLED
            entered = False
            try:
                caller.enter(path, len(payload))
                entered = True
                async with aclosing(handler(parse(request_type, payload), call)) as replies:
                    while (reply := await _unless(leaving, anext(replies, None))) is not None:
                        answer = reply.SerializeToString()
                        watched.count_message(len(answer))
                        writing = asyncio.ensure_future(context.write(answer))
                        if not (await asyncio.wait({writing}, timeout=_STALLED_AFTER_S))[0]:
                            break
                        await writing
                if writing is not None and not writing.done():
                    # gRPC sends no status before the message that it is still holding.
                    await writing
                    raise ResourceExhausted(
                        f"nothing was read for {_STALLED_AFTER_S:g} s", reason="READER_STALLED", retry_after_s=1.0
                    )
                code = code_pb2.OK
            except Exception as error:  # noqa: BLE001  as of a unary call
                status = translate(error, call)
                code = status.code
                await abort(context, status)
            finally:
                if entered:
                    caller.leave()
                watched.end(_as_seen_by_caller(code, call))
                leaving.cancel()
                self.streams.discard(task)

        return behaviour

    def note_idle(self) -> None:
        """Sets `idle` if nothing is left to wait for."""
        if self.draining.is_set() and self.num_running == 0:
            self.idle.set()


def _as_seen_by_caller(code: int, call: Call) -> int:
    """Tells a caller who has gone from one whose deadline passed: gRPC cancels the handler of both."""
    if code == code_pb2.CANCELLED and call.deadline is not None and time.monotonic() >= call.deadline:
        return int(code_pb2.DEADLINE_EXCEEDED)
    return code


def _shutting_down() -> Unavailable:
    return Unavailable("the service is shutting down", reason="SHUTTING_DOWN", retry_after_s=1.0)


async def _unless(leaving: asyncio.Future[Any], coming: Awaitable[Message | None]) -> Message | None:
    """Returns what is coming, or raises `Unavailable` if the server leaves first."""
    next_reply = asyncio.ensure_future(coming)
    try:
        await asyncio.wait({leaving, next_reply}, return_when=asyncio.FIRST_COMPLETED)
        if leaving.done():
            raise _shutting_down()
        return next_reply.result()
    finally:
        if not next_reply.done():
            next_reply.cancel()
            await asyncio.wait({next_reply})
