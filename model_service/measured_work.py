"""Measures what batches wait for: functions in threads, and reads of feature_service. Knows times; knows no result."""

import time
from collections.abc import Sequence
from typing import Any

import grpc.aio
from prometheus_client import Histogram

from model_service.catalogue_mirror import InBackground
from model_service.features import FeatureReader, UsersRead
from service_runtime.errors import ServiceError
from service_runtime.metrics import Metrics


class MeasuredThreads:
    """Times what runs in the threads beside the event loop."""

    def __init__(self, metrics: Metrics) -> None:
        """Defines the metric."""
        self._durations = metrics.histogram(
            "work_duration_seconds",
            "Time of one piece of work in a thread and of its wait for the thread, by the function's name: "
            "answer_and_embed scores a batch, load reads a checkpoint, build and over run the movie tower.",
            ["thread", "work"],
        )

    def measured(self, thread: str, in_background: InBackground) -> InBackground:
        """Returns the same way to run functions, measured."""
        bound: dict[str, Histogram] = {}

        async def run(function: Any, *arguments: Any) -> Any:
            work = function.__name__.strip("_")
            histogram = bound.get(work)
            if histogram is None:
                histogram = bound[work] = self._durations.labels(thread, work)
            began = time.perf_counter()
            try:
                return await in_background(function, *arguments)
            finally:
                histogram.observe(time.perf_counter() - began)

        return run


class MeasuredReader(FeatureReader):
    """Reads as `FeatureReader` does."""

    def __init__(self, channel: grpc.aio.Channel, timeout_s: float, metrics: Metrics) -> None:
        """Defines the metrics."""
        super().__init__(channel, timeout_s)
        self._durations = metrics.histogram("feature_read_duration_seconds", "Time of one read of users for a batch.")
        self._users = metrics.counter("feature_read_users", "Users that were read.")
        self._failures = metrics.counter("feature_read_failures", "Reads of users that failed, by why.", ["reason"])
        self._failures.labels("FEATURE_SERVICE_UNAVAILABLE")

    async def read_users(
        self, user_ids: Sequence[str], history_limit: int, *, with_seen: bool, deadline: float
    ) -> UsersRead:
        """Reads users, as `FeatureReader.read_users`."""
        began = time.perf_counter()
        try:
            read = await super().read_users(user_ids, history_limit, with_seen=with_seen, deadline=deadline)
        except ServiceError as error:
            self._failures.labels(error.reason).inc()
            raise
        finally:
            self._durations.observe(time.perf_counter() - began)
        self._users.inc(len(user_ids))
        return read
