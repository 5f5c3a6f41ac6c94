"""Measures and traces batches on their way to the pipeline. Knows members and times; knows no task, tensor or RPC."""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any

from model_service.batcher import BatchWork, Member
from model_service.waiting_room import Priority, WaitingRoom
from service_runtime.calls import NOTES
from service_runtime.metrics import Metrics
from service_runtime.tracing import Tracing

_ROWS_BUCKETS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 125.0, 250.0, 500.0, 1000.0)
"""The default of MODEL_MAX_BATCH_ROWS and its halves; above it, single requests that are larger."""


class ObservedBatches:
    """A stage before the pipeline that changes nothing."""

    def __init__(
        self, work: BatchWork[Any, Any], metrics: Metrics, tracing: Tracing | None, clock: Callable[[], float]
    ) -> None:
        """Defines what is measured of batches.

        Args:
            work: Answers them.
            metrics: Where they are counted.
            tracing: Makes a span of each.
            clock: Monotonic seconds, the clock of the batcher.
        """
        self._work = work
        self._tracing = tracing
        self._clock = clock
        waits = metrics.histogram(
            "queue_wait_seconds", "How long requests waited for their batch, by priority.", ["priority"]
        )
        self._waits = {priority: waits.labels(priority.name.lower()) for priority in Priority}
        self._rows = metrics.histogram("batch_rows", "Users in a batch.", buckets=_ROWS_BUCKETS)
        self._requests = metrics.histogram("batch_requests", "Requests in a batch.", buckets=_ROWS_BUCKETS)
        self._durations = metrics.histogram("batch_duration_seconds", "Time from a batch's release to its last answer.")
        self._late = metrics.counter("late_requests", "Requests whose deadline passed while their batch was worked on.")

    async def __call__(self, members: Sequence[Member[Any, Any]]) -> None:
        """Answers the members of a batch."""
        began = self._clock()
        rows = 0
        notes = []
        for member in members:
            rows += member.rows
            wait_s = began - member.arrived
            self._waits[member.priority].observe(wait_s)
            noted = member.context.get(NOTES)
            if noted is not None:
                noted["queue_wait_s"] = wait_s
                notes.append(noted)
        self._rows.observe(rows)
        self._requests.observe(len(members))
        try:
            with self._span(members, rows):
                await self._work(members)
        finally:
            now = self._clock()
            self._durations.observe(now - began)
            for noted in notes:
                noted["batch_s"], noted["batch_rows"] = now - began, rows
            late = sum(member.deadline <= now for member in members)
            if late:
                self._late.inc(late)

    def _span(self, members: Sequence[Member[Any, Any]], rows: int) -> Any:
        if self._tracing is None:
            return nullcontext()
        return self._tracing.batch("batch", [member.context for member in members], rows=rows, requests=len(members))


def tell_waiting_room(metrics: Metrics, room: WaitingRoom[Any]) -> None:
    """Lets Prometheus see what waits, what left, and why."""
    metrics.gauge_of(
        "waiting_rows",
        "Users that wait, by priority.",
        lambda: {(priority.name.lower(),): room.rows_waiting(priority) for priority in Priority},
        ["priority"],
    )
    metrics.gauge_of("batches_in_flight", "Batches under way.", lambda: {(): room.in_flight})
    metrics.counter_of(
        "batches",
        "Batches that left, by why: idle, the device was idle; held, it or the loop was busy; full.",
        lambda: {(why.value,): number for why, number in room.released.items()},
        ["reason"],
    )
    metrics.counter_of(
        "dropped_requests",
        "Requests that left the queue without a batch, by why: refused, expired, cancelled.",
        lambda: {(why.value,): number for why, number in room.dropped.items()},
        ["reason"],
    )


def tell_spared(metrics: Metrics, num_spared: Callable[[], int]) -> None:
    """Lets Prometheus see on how many requests no model time was spent, late as they left."""
    metrics.counter_of(
        "spared_requests",
        "Requests whose callers had gone while their users were read, so that nothing was computed for them.",
        lambda: {(): num_spared()},
    )
