"""Runs gRPC services: listens, translates errors, answers health and reflection, drains. Knows no RPC by name.

Handlers know no gRPC: an object with one method per RPC of the service, named like it in snake_case
(`BatchGetUsers` is `batch_get_users`), each `async def f(self, request, call) -> reply`, or for an RPC that streams its
answers an asynchronous generator of them. Errors are raised as `service_runtime.errors.ServiceError` and translated
here, in one place.
"""

import asyncio
import re
import signal
import sys
import time
import uuid
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, NoReturn

import grpc
import grpc.aio
import structlog
from google.protobuf import message_factory
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.message import DecodeError, Message
from google.rpc import code_pb2
from grpc_health.v1 import health as grpc_health
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from service_runtime.errors import (
    InvalidRequest,
    ResourceExhausted,
    ServiceError,
    Unavailable,
    Violation,
    to_status,
)
from service_runtime.health import Health

_log = structlog.get_logger(__name__)
_REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,64}")
_STATUS_BY_CODE = {status.value[0]: status for status in grpc.StatusCode}
_LONGER_THAN_ANY_STOP_S = 3600.0
# How long nothing has to arrive for a leaving server to stop listening, and how often it waits for that at most.
_MOMENT_S = 0.05
_MOMENTS = 20
# How long streams have to end once the server leaves: they need no more unless their readers stall.
_STREAMS_END_WITHIN_S = 1.0
# A caller who reads none of his stream for so long is cut off; what waits for him is one window of HTTP/2.
_STALLED_AFTER_S = 20.0
# gRPC's default, named because the contract's limits are computed from it.
MAX_MESSAGE_BYTES = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Call:
    """What a handler may know of a call beside its request.

    Attributes:
        method: Full name, for example "/marquee.v1.FeatureService/WriteEvents".
        deadline: The point of `time.monotonic` at which the caller stops waiting; None if he never does.
        request_id: The caller's x-request-id, or one made here.
        metadata: Text metadata of the call; of repeated keys the last.
        peer: Address of the caller as gRPC writes it.
    """

    method: str
    deadline: float | None
    request_id: str
    metadata: Mapping[str, str] = field(default_factory=dict)
    peer: str = ""

    def remaining_s(self, now: float) -> float | None:
        """Returns the time left at `now` (`time.monotonic`), None without a deadline."""
        return None if self.deadline is None else max(0.0, self.deadline - now)


@dataclass(frozen=True, slots=True)
class Service:
    """One gRPC service and the object that answers it.

    Attributes:
        descriptor: For example `feature_service_pb2.DESCRIPTOR.services_by_name["FeatureService"]`.
        handlers: Has a method per RPC, see the module's text.
    """

    descriptor: ServiceDescriptor
    handlers: object


class StartError(Exception):
    """The process cannot start, and waiting would not help; the text says what a person should do."""


Handler = Callable[[Any, Call], Awaitable[Message]]
StreamHandler = Callable[[Any, Call], AsyncGenerator[Message, None]]


class Server:
    """A gRPC server for some services, with health and reflection.

    Use it as `async with`: entering listens, leaving drains. Requests that need an absent dependency are the handlers'
    business; the server refuses new calls only while it drains.
    """

    def __init__(
        self,
        services: Sequence[Service],
        health: Health,
        *,
        listen: str,
        drain_timeout_s: float,
        options: Sequence[tuple[str, int | str]] = (),
    ) -> None:
        """Stores what to serve.

        Args:
            services: What is served.
            health: Whether it can be answered now; published as grpc.health.v1.
            listen: host:port; port 0 takes a free one, see `address`.
            drain_timeout_s: How long running calls may take once the server leaves.
            options: Further gRPC channel arguments.
        """
        self._services = services
        self._health = health
        self._listen = listen
        self._drain_timeout_s = drain_timeout_s
        self._options = options
        self._server: grpc.aio.Server | None = None
        self._num_running = 0
        self._num_taken = 0
        self._streams: set[asyncio.Task[Any]] = set()
        self._idle = asyncio.Event()
        self._draining = asyncio.Event()
        self.address = ""

    async def __aenter__(self) -> "Server":
        """Listens. Raises `StartError` if the address cannot be had."""
        options: list[tuple[str, int | str]] = [
            # Without it a second process on the same port is served every second connection.
            ("grpc.so_reuseport", 0),
            ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
            # Clients of ours send keepalive pings every 30 s; gRPC would hang up on them by default.
            ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
            ("grpc.keepalive_permit_without_calls", 1),
            *self._options,
        ]
        self._server = server = grpc.aio.server(options=options)
        names = [service.descriptor.full_name for service in self._services]
        for service in self._services:
            server.add_generic_rpc_handlers((self._generic_handler(service),))
        servicer = grpc_health.aio.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
        reflection.enable_server_reflection(
            [*names, health_pb2.DESCRIPTOR.services_by_name["Health"].full_name, reflection.SERVICE_NAME], server
        )
        try:
            port = server.add_insecure_port(self._listen)
        except RuntimeError as error:
            raise StartError(f"cannot listen on {self._listen}: {error}") from error
        if port == 0:
            raise StartError(f"cannot listen on {self._listen}")
        self.address = f"{self._listen.rpartition(':')[0]}:{port}"
        await self._health.attach(servicer)
        await server.start()
        _log.info("listening", address=self.address, services=names)
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stops taking calls, waits for the running ones, closes what is left."""
        if self._server is None:
            return
        await self._health.leave()
        self._draining.set()
        _log.info("draining", running=self._num_running, drain_timeout_s=self._drain_timeout_s)
        stopping = None
        try:
            await self._take_what_has_arrived()
            # A grace that never runs out: one that ends while the second stop below is under way makes grpc.aio cancel
            # the calls of a server that is freed already, which is a segmentation fault (grpcio 1.85).
            stopping = asyncio.create_task(self._server.stop(self._drain_timeout_s + _LONGER_THAN_ANY_STOP_S))
            self._note_idle()
            # Health watches never end by themselves, so the server's own wait would always last the full timeout.
            await asyncio.wait_for(self._idle.wait(), self._drain_timeout_s)
            if self._streams:
                await asyncio.wait(set(self._streams), timeout=_STREAMS_END_WITHIN_S)
            # So that the last replies leave before their connections do.
            await asyncio.sleep(0.05)
        except TimeoutError:
            _log.warning("drain_timeout", running=self._num_running)
        finally:
            await self._server.stop(None)
            if stopping is not None:
                await stopping
        _log.info("stopped")

    async def _take_what_has_arrived(self) -> None:
        """Waits until no call has come for a moment, so that each gets an answer, if only that we are leaving.

        A server that stops takes no call any more, also not those that wait within gRPC: it ends them as CANCELLED,
        which no caller repeats.
        """
        for _ in range(_MOMENTS):
            taken = self._num_taken
            await asyncio.sleep(_MOMENT_S)
            if self._num_taken == taken:
                return

    def _generic_handler(self, service: Service) -> grpc.GenericRpcHandler:
        descriptor = service.descriptor
        handlers: dict[str, Any] = {}
        missing = []
        for method in descriptor.methods:
            if method.client_streaming:
                raise TypeError(f"{method.full_name}: RPCs that stream requests have no handler form")
            handler = getattr(service.handlers, snake_case(method.name), None)
            if handler is None:
                missing.append(snake_case(method.name))
                continue
            if method.server_streaming:
                handlers[method.name] = grpc.unary_stream_rpc_method_handler(self._stream_behaviour(method, handler))
            else:
                handlers[method.name] = grpc.unary_unary_rpc_method_handler(self._behaviour(method, handler))
        if missing:
            raise TypeError(f"{type(service.handlers).__name__} lacks handlers of {descriptor.full_name}: {missing}")
        return grpc.method_handlers_generic_handler(descriptor.full_name, handlers)

    def _behaviour(self, method: MethodDescriptor, handler: Handler) -> Any:
        """Returns what gRPC calls: bytes in, bytes out, errors translated.

        Parsing happens here because grpc.aio answers UNKNOWN with the exception's text when its own parsing fails.
        """
        request_type = message_factory.GetMessageClass(method.input_type)
        path = f"/{method.containing_service.full_name}/{method.name}"

        async def behaviour(payload: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
            call = _call(path, context)
            self._num_running += 1
            self._num_taken += 1
            try:
                if self._draining.is_set():
                    raise _shutting_down()
                request = _parse(request_type, payload)
                reply = await handler(request, call)
                return reply.SerializeToString()
            except Exception as error:  # noqa: BLE001  every failure of a handler is translated here, nowhere else
                await _abort(context, error, call)
            finally:
                self._num_running -= 1
                self._note_idle()

        return behaviour

    def _stream_behaviour(self, method: MethodDescriptor, handler: StreamHandler) -> Any:
        """Returns what gRPC calls for an RPC that streams its answers; a stream ends as soon as the server leaves."""
        request_type = message_factory.GetMessageClass(method.input_type)
        path = f"/{method.containing_service.full_name}/{method.name}"

        async def behaviour(payload: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> None:
            call = _call(path, context)
            self._num_taken += 1
            leaving = asyncio.ensure_future(self._draining.wait())
            task = asyncio.current_task()
            assert task is not None
            self._streams.add(task)
            writing = None
            try:
                async with aclosing(handler(_parse(request_type, payload), call)) as replies:
                    while (reply := await _unless(leaving, anext(replies, None))) is not None:
                        writing = asyncio.ensure_future(context.write(reply.SerializeToString()))
                        if not (await asyncio.wait({writing}, timeout=_STALLED_AFTER_S))[0]:
                            break
                        await writing
                if writing is not None and not writing.done():
                    # gRPC sends no status before the message that it is still holding.
                    await writing
                    raise ResourceExhausted(
                        f"nothing was read for {_STALLED_AFTER_S:g} s", reason="READER_STALLED", retry_after_s=1.0
                    )
            except Exception as error:  # noqa: BLE001  as of a unary call
                await _abort(context, error, call)
            finally:
                leaving.cancel()
                self._streams.discard(task)

        return behaviour

    def _note_idle(self) -> None:
        if self._draining.is_set() and self._num_running == 0:
            self._idle.set()


def snake_case(name: str) -> str:
    """Returns the handler's name of an RPC: `TopK` is `top_k`."""
    return re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()


def _parse(request_type: type[Message], payload: bytes) -> Message:
    try:
        return request_type.FromString(payload)
    except DecodeError as error:
        raise InvalidRequest([Violation("", f"not a {request_type.DESCRIPTOR.full_name}")]) from error


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


def _call(path: str, context: grpc.aio.ServicerContext[bytes, bytes]) -> Call:
    metadata = {key: value for key, value in context.invocation_metadata() or () if isinstance(value, str)}
    given = metadata.get("x-request-id", "")
    request_id = given if _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex
    remaining_s = context.time_remaining()
    deadline = None if remaining_s is None else time.monotonic() + remaining_s
    return Call(path, deadline, request_id, metadata, context.peer())


async def _abort(context: grpc.aio.ServicerContext[bytes, bytes], error: Exception, call: Call) -> NoReturn:
    if not isinstance(error, ServiceError):
        _log.error("internal_error", method=call.method, request_id=call.request_id, exc_info=error)
    status = to_status(error, call.request_id)
    code = _STATUS_BY_CODE[status.code if status.code != code_pb2.OK else code_pb2.UNKNOWN]
    await context.abort(
        code, status.message, trailing_metadata=(("grpc-status-details-bin", status.SerializeToString()),)
    )


def run(main: Callable[[asyncio.Event], Coroutine[Any, Any, None]]) -> NoReturn:
    """Runs a process of ours to its end: exit 0 after a signal, 2 if it could not start, 1 if it was cut short.

    Args:
        main: The process. It gets an event that the first SIGTERM or SIGINT sets, also one that comes while it starts;
            a second signal cancels it wherever it is.
    """
    try:
        if sys.platform == "win32":
            asyncio.run(_until_signal(main))
        else:
            import uvloop

            uvloop.run(_until_signal(main))
    except StartError as error:
        _log.error("cannot_start", reason=str(error))
        raise SystemExit(2) from None
    except (asyncio.CancelledError, KeyboardInterrupt):
        raise SystemExit(1) from None
    raise SystemExit(0)


async def _until_signal(main: Callable[[asyncio.Event], Coroutine[Any, Any, None]]) -> None:
    stop = asyncio.Event()
    running = asyncio.create_task(main(stop))

    def on_signal(number: int) -> None:
        name = signal.Signals(number).name
        if stop.is_set():
            _log.warning("second_signal", name=name)
            running.cancel()
        else:
            _log.info("signal", name=name)
            stop.set()

    if sys.platform != "win32":
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, on_signal, number)
    await running
