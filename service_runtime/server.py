"""Runs gRPC services: listens, translates errors, answers health and reflection, drains. Knows no RPC by name.

Handlers know no gRPC: an object with one method per RPC of the service, named like it in snake_case
(`BatchGetUsers` is `batch_get_users`), each `async def f(self, request, call) -> reply`, or for an RPC that streams its
answers an asynchronous generator of them. Errors are raised as `service_runtime.errors.ServiceError` and translated
here, in one place.
"""

import asyncio
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import grpc
import grpc.aio
import structlog
from google.protobuf.descriptor import ServiceDescriptor
from grpc_health.v1 import health as grpc_health
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2_grpc

from service_runtime.behaviours import Behaviours
from service_runtime.calls import Call
from service_runtime.certificates import CertificateFiles, ServerCertificates
from service_runtime.health import Health
from service_runtime.metrics import Metrics
from service_runtime.observation import Observation
from service_runtime.reflection import GuardedReflection
from service_runtime.security import NO_LIMITS, Callers, Limits, UnusableFileError

__all__ = ["MAX_MESSAGE_BYTES", "Call", "Security", "Server", "Service", "StartError", "run", "snake_case"]

_log = structlog.get_logger(__name__)
_LONGER_THAN_ANY_STOP_S = 3600.0
_LOOPBACK = ("127.", "localhost:", "[::1]:", "unix:")
# How long nothing has to arrive for a leaving server to stop listening, and how often it waits for that at most.
_MOMENT_S = 0.05
_MOMENTS = 20
# How long streams have to end once the server leaves: they need no more unless their readers stall.
_STREAMS_END_WITHIN_S = 1.0
# How long what a second signal cancels, and threads at the end of a process, may take to end.
_GONE_WITHIN_S = 2.0
# gRPC's default, named because the contract's limits are computed from it.
MAX_MESSAGE_BYTES = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Service:
    """One gRPC service and the object that answers it.

    Attributes:
        descriptor: For example `feature_service_pb2.DESCRIPTOR.services_by_name["FeatureService"]`.
        handlers: Has a method per RPC, see the module's text.
    """

    descriptor: ServiceDescriptor
    handlers: object


@dataclass(frozen=True, slots=True)
class Security:
    """How a server is secured.

    Attributes:
        certificates: By which it speaks TLS; None speaks in the clear.
        tokens_file: Names who may call; None lets anybody.
        health_listen: host:port that answers grpc.health.v1 alone, in the clear; empty for none.
        limits: What one caller may have at most where the file of tokens names nothing else.
    """

    certificates: CertificateFiles | None = None
    tokens_file: Path | None = None
    health_listen: str = ""
    limits: Limits = NO_LIMITS


class StartError(Exception):
    """The process cannot start, and waiting would not help; the text says what a person should do."""


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
        leave_notice_s: float = 0.0,
        observation: Observation | None = None,
        security: Security | None = None,
        options: Sequence[tuple[str, int | str]] = (),
    ) -> None:
        """Stores what to serve.

        Args:
            services: What is served.
            health: Whether it can be answered now; published as grpc.health.v1.
            listen: host:port; port 0 takes a free one, see `address`.
            drain_timeout_s: How long running calls may take once the server leaves.
            leave_notice_s: How long it answers as ever after health says that it leaves, and only then refuses.
            observation: Is told of each call; by default one that nobody reads.
            security: Who may call and by what certificates; by default anybody, in the clear.
            options: Further gRPC channel arguments.
        """
        self._services = services
        self._health = health
        self._listen = listen
        self._drain_timeout_s = drain_timeout_s
        self._leave_notice_s = leave_notice_s
        self._options = options
        self._server: grpc.aio.Server | None = None
        self._security = security or Security()
        self._callers = Callers(self._security.tokens_file, limits=self._security.limits)
        self._behaviours = Behaviours(observation or Observation(Metrics("process")), self._callers)
        self._health_server: grpc.aio.Server | None = None
        self.address = ""
        self.health_address = ""

    def tell(self, metrics: Metrics) -> None:
        """Tells of the limits that each caller has, under the area "rpc"."""
        counts, area = self._callers.counts, metrics.area("rpc")
        area.counter_of(
            "over_caller_limit",
            "Calls that were refused because their caller was over a limit of his, by the limit.",
            lambda: {(limit,): number for limit, number in counts.refused.items()},
            ["limit"],
        )
        area.gauge_of(
            "busiest_caller_in_flight",
            "Calls under way of the caller who has most; 0 where nobody is told from others.",
            lambda: {(): max(list(counts.running.values()), default=0)},
        )

    async def __aenter__(self) -> "Server":
        """Listens. Raises `StartError` if an address cannot be had, or a file of tokens or certificates not be used."""
        options: list[tuple[str, int | str]] = [
            # Of two arguments of one name gRPC takes the first.
            *self._options,
            # Without it a second process on the same port is served every second connection.
            ("grpc.so_reuseport", 0),
            ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
            # Clients of ours send keepalive pings every 12 s; gRPC would hang up on them by default.
            ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
            ("grpc.keepalive_permit_without_calls", 1),
        ]
        self._server = server = grpc.aio.server(options=options)
        names = [service.descriptor.full_name for service in self._services]
        for service in self._services:
            server.add_generic_rpc_handlers((self._generic_handler(service),))
        servicer = grpc_health.aio.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
        shown = [*names, health_pb2.DESCRIPTOR.services_by_name["Health"].full_name]
        reflection_pb2_grpc.add_ServerReflectionServicer_to_server(GuardedReflection(shown, self._callers), server)
        try:
            self._callers.open()
            credentials = None
            if self._security.certificates is not None:
                credentials = ServerCertificates(self._security.certificates).open()
        except UnusableFileError as error:
            raise StartError(str(error)) from error
        self.address = _listen(server, self._listen, credentials)
        if self._security.health_listen:
            # Kubernetes and Docker probe without certificates, and need neither tokens nor our RPCs for it.
            self._health_server = grpc.aio.server(options=[*self._options, ("grpc.so_reuseport", 0)])
            health_pb2_grpc.add_HealthServicer_to_server(servicer, self._health_server)
            self.health_address = _listen(self._health_server, self._security.health_listen, None)
        await self._health.attach(servicer)
        await server.start()
        if self._health_server is not None:
            await self._health_server.start()
        with_tls, with_tokens = credentials is not None, self._callers.known_by_token
        _log.info("listening", address=self.address, services=names, tls=with_tls, tokens=with_tokens)
        if with_tokens and not with_tls and not self.address.startswith(_LOOPBACK):
            _log.warning("tokens_in_the_clear", address=self.address)
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stops taking calls, waits for the running ones, closes what is left."""
        if self._server is None:
            return
        await self._health.leave()
        stopping = None
        try:
            # Who asks through a proxy would be sent to us again and again until it has looked at our health.
            await asyncio.sleep(self._leave_notice_s)
            self._behaviours.draining.set()
            _log.info("draining", running=self._behaviours.num_running, drain_timeout_s=self._drain_timeout_s)
            await self._take_what_has_arrived()
            # A grace that never runs out: one that ends while the second stop below is under way makes grpc.aio cancel
            # the calls of a server that is freed already, which is a segmentation fault (grpcio 1.85).
            stopping = asyncio.create_task(self._server.stop(self._drain_timeout_s + _LONGER_THAN_ANY_STOP_S))
            self._behaviours.note_idle()
            # Health watches never end by themselves, so the server's own wait would always last the full timeout.
            await asyncio.wait_for(self._behaviours.idle.wait(), self._drain_timeout_s)
            if self._behaviours.streams:
                await asyncio.wait(set(self._behaviours.streams), timeout=_STREAMS_END_WITHIN_S)
            # So that the last replies leave before their connections do.
            await asyncio.sleep(0.05)
        except TimeoutError:
            _log.warning("drain_timeout", running=self._behaviours.num_running)
        finally:
            await self._server.stop(None)
            if self._health_server is not None:
                await self._health_server.stop(None)
            if stopping is not None:
                await stopping
        _log.info("stopped")

    async def _take_what_has_arrived(self) -> None:
        """Waits until no call has come for a moment, so that each gets an answer, if only that we are leaving.

        A server that stops takes no call any more, also not those that wait within gRPC: it ends them as CANCELLED,
        which no caller repeats.
        """
        for _ in range(_MOMENTS):
            taken = self._behaviours.num_taken
            await asyncio.sleep(_MOMENT_S)
            if self._behaviours.num_taken == taken:
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
                handlers[method.name] = grpc.unary_stream_rpc_method_handler(self._behaviours.stream(method, handler))
            else:
                handlers[method.name] = grpc.unary_unary_rpc_method_handler(self._behaviours.unary(method, handler))
        if missing:
            raise TypeError(f"{type(service.handlers).__name__} lacks handlers of {descriptor.full_name}: {missing}")
        return grpc.method_handlers_generic_handler(descriptor.full_name, handlers)


def _listen(server: grpc.aio.Server, address: str, credentials: grpc.ServerCredentials | None) -> str:
    try:
        if credentials is None:
            port = server.add_insecure_port(address)
        else:
            port = server.add_secure_port(address, credentials)
    except RuntimeError as error:
        raise StartError(f"cannot listen on {address}: {error}") from error
    if port == 0:
        raise StartError(f"cannot listen on {address}")
    return f"{address.rpartition(':')[0]}:{port}"


def snake_case(name: str) -> str:
    """Returns the handler's name of an RPC: `TopK` is `top_k`."""
    return re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()


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
    _leave_threads()
    raise SystemExit(0)


def _leave_threads() -> None:
    """Ends the process with 0 if threads are in the middle of something, for which Python would wait however long."""
    until_s = time.monotonic() + _GONE_WITHIN_S
    others = [thread for thread in threading.enumerate() if not thread.daemon and thread is not threading.main_thread()]
    for thread in others:
        thread.join(max(0.0, until_s - time.monotonic()))
    names = sorted(thread.name for thread in others if thread.is_alive())
    if names:
        _log.info("threads_left", names=names)
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)


async def _until_signal(main: Callable[[asyncio.Event], Coroutine[Any, Any, None]]) -> None:
    stop = asyncio.Event()
    running = asyncio.create_task(main(stop))

    def on_signal(number: int) -> None:
        name = signal.Signals(number).name
        if stop.is_set():
            _log.warning("second_signal", name=name)
            running.cancel()
            deadline = threading.Timer(_GONE_WITHIN_S, os._exit, (1,))
            deadline.daemon = True
            deadline.start()
        else:
            _log.info("signal", name=name)
            stop.set()

    if sys.platform != "win32":
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, on_signal, number)
    await running
