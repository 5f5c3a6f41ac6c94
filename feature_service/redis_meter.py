"""Measures what Redis takes and how it fails. Knows metrics; knows no connection, key or value."""

from prometheus_client import Histogram

from service_runtime.metrics import Metrics


class RedisMeter:
    """Is told of each command, or of what travels together in one round trip."""

    def __init__(self, metrics: Metrics) -> None:
        """Defines the metrics."""
        self._durations = metrics.histogram(
            "redis_duration_seconds",
            "Time of one round trip to Redis with all its tries and the wait for a connection, by command; several "
            "commands at once are a pipeline, or a write.",
            ["command"],
        )
        self._failures = metrics.counter("redis_failures", "Round trips that failed for good, by why.", ["reason"])
        self._failed_tries = metrics.counter(
            "redis_failed_tries", "Tries that failed, those after which another one succeeded included."
        )
        # There before it happens: a rise from nothing is none.
        self._failures.labels("REDIS_UNAVAILABLE")
        self._bound: dict[str, Histogram] = {}

    def took(self, command: str, elapsed_s: float) -> None:
        """Notes the time of a round trip, however it ended."""
        bound = self._bound.get(command)
        if bound is None:
            bound = self._bound[command] = self._durations.labels(command)
        bound.observe(elapsed_s)

    def failed(self, reason: str) -> None:
        """Notes a failure that a caller is told of."""
        self._failures.labels(reason).inc()

    def try_failed(self) -> None:
        """Notes that one try failed."""
        self._failed_tries.inc()
