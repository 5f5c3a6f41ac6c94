"""Decides whether a service is ready, from what it depends on. Knows names and reasons; knows no dependency itself."""

from collections.abc import Mapping, Sequence
from typing import Protocol

import structlog
from grpc_health.v1 import health_pb2

from service_runtime.metrics import Metrics

_log = structlog.get_logger(__name__)


class StatusSink(Protocol):
    """Where statuses are published; grpc_health.v1's servicer is one."""

    async def set(self, service: str, status: health_pb2.HealthCheckResponse.ServingStatus) -> None:
        """Publishes the status of one service, or of all by the empty name."""

    async def enter_graceful_shutdown(self) -> None:
        """Publishes NOT_SERVING for good."""


class Health:
    """A process is ready when every dependency is; until it has said so, a dependency is not.

    One process of ours offers one thing, so all its services share one status, which is also that of the empty name.
    """

    def __init__(self, service_names: Sequence[str], dependencies: Sequence[str]) -> None:
        """Stores what is served and what that needs.

        Args:
            service_names: Full names of the gRPC services.
            dependencies: Names of what they need, for example "redis".
        """
        self._service_names = tuple(service_names)
        self._reasons: dict[str, str | None] = dict.fromkeys(dependencies, "not tried yet")
        self._sink: StatusSink | None = None
        self._leaving = False

    @property
    def ready(self) -> bool:
        """Whether requests can be answered now."""
        return not self._leaving and not self.reasons

    @property
    def reasons(self) -> Mapping[str, str]:
        """What is missing, and why, by dependency; empty when nothing is."""
        return {name: reason for name, reason in self._reasons.items() if reason is not None}

    def describe(self) -> str:
        """Returns the reasons as one line for a person; empty when ready."""
        if self._leaving:
            return "shutting down"
        return "; ".join(f"{name}: {reason}" for name, reason in self.reasons.items())

    def tell(self, metrics: Metrics) -> None:
        """Lets Prometheus see what is missing."""
        process = metrics.area("process")
        process.gauge_of("ready", "1 if requests can be answered now.", lambda: {(): self.ready})
        process.gauge_of(
            "dependency_ready",
            "1 if a dependency of the process is there.",
            lambda: {(name,): reason is None for name, reason in self._reasons.items()},
            ["dependency"],
        )

    async def attach(self, sink: StatusSink) -> None:
        """Publishes to `sink` from now on."""
        self._sink = sink
        await self._publish()

    async def found(self, dependency: str) -> None:
        """Notes that a dependency is there."""
        await self._note(dependency, None)

    async def lost(self, dependency: str, reason: str) -> None:
        """Notes that a dependency is absent, and why. The same reason again is not logged again."""
        await self._note(dependency, reason)

    async def leave(self) -> None:
        """Publishes NOT_SERVING for good."""
        self._leaving = True
        if self._sink is not None:
            await self._sink.enter_graceful_shutdown()

    async def _note(self, dependency: str, reason: str | None) -> None:
        before = self._reasons[dependency]
        if before == reason:
            return
        self._reasons[dependency] = reason
        if reason is None:
            _log.info("dependency_found", dependency=dependency)
        else:
            _log.warning("dependency_lost", dependency=dependency, reason=reason)
        await self._publish()

    async def _publish(self) -> None:
        if self._sink is None or self._leaving:
            return
        response = health_pb2.HealthCheckResponse
        status = response.SERVING if self.ready else response.NOT_SERVING
        for name in ("", *self._service_names):
            await self._sink.set(name, status)
