"""Counts, times and traces calls. Knows methods, codes and sizes; knows no RPC by name and no port.

Every method has its numbers from the start, for each of gRPC's 17 codes, so that the first failure is seen as a rise.
What a call costs here: see docs/decisions/0025-metrics-by-prometheus-client.md.
"""

import time
from typing import TYPE_CHECKING

from google.protobuf.message import Message
from google.rpc import code_pb2
from prometheus_client import Histogram

from service_runtime.calls import NOTES, Call
from service_runtime.metrics import Metrics, Numbers
from service_runtime.slow_requests import SlowRequests

if TYPE_CHECKING:
    from opentelemetry.trace import Span

    from service_runtime.tracing import ServerSpans

CODES: tuple[str, ...] = tuple(code_pb2.Code.Name(number) for number in range(17))
"""Names of gRPC's status codes, by number."""

_STREAM_BUCKETS_S = (1.0, 10.0, 60.0, 600.0, 3600.0, 6 * 3600.0, 24 * 3600.0)
_LABELS = ("service", "method")


class _Counts:
    """Plain numbers of one method; only the event loop changes them."""

    __slots__ = ("durations", "finished", "in_flight", "labels", "messages", "request_bytes", "response_bytes")

    def __init__(self, path: str, durations: Histogram) -> None:
        service, _, method = path.removeprefix("/").rpartition("/")
        self.labels = (service.rpartition(".")[2], method)
        self.in_flight = 0
        self.finished = [0] * len(CODES)
        self.request_bytes = 0
        self.response_bytes = 0
        self.messages = 0
        self.durations = {code_pb2.OK: durations.labels(*self.labels, "OK")}


class Observation:
    """What is known of the calls of one process."""

    def __init__(self, metrics: Metrics, slow: SlowRequests | None = None, spans: "ServerSpans | None" = None) -> None:
        """Defines the metrics of RPCs.

        Args:
            metrics: Where they are kept, under the area "rpc".
            slow: Is told of each unary call that took long.
            spans: Traces calls; None traces nothing.
        """
        self._slow = slow
        self._spans = spans
        self._counts: dict[str, _Counts] = {}
        rpc = metrics.area("rpc")
        self._durations = rpc.histogram(
            "duration_seconds", "Time from taking a unary call to its answer, by status code.", [*_LABELS, "code"]
        )
        self._stream_durations = rpc.histogram(
            "stream_duration_seconds", "How long streams lasted, by status code.", [*_LABELS, "code"], _STREAM_BUCKETS_S
        )
        rpc.counter_of("finished", "Calls that ended, by status code.", self._finished, [*_LABELS, "code"])
        for name, meaning, field in (
            ("request_bytes", "Bytes of requests.", "request_bytes"),
            ("response_bytes", "Bytes of answers.", "response_bytes"),
            ("stream_messages", "Messages sent in streams.", "messages"),
        ):
            rpc.counter_of(name, meaning, lambda field=field: self._each(field), _LABELS)  # type: ignore[misc]
        rpc.gauge_of("in_flight", "Calls under way.", lambda: self._each("in_flight"), _LABELS)

    def method(self, path: str) -> "ObservedMethod":
        """Returns who is told of the calls of a unary method; `path` is its full name with slashes."""
        counts = self._counts[path] = _Counts(path, self._durations)
        return ObservedMethod(counts, self._durations, self._slow, self._spans)

    def stream(self, path: str) -> "ObservedMethod":
        """Returns the same for a method that streams; nobody calls a long stream slow."""
        counts = self._counts[path] = _Counts(path, self._stream_durations)
        return ObservedMethod(counts, self._stream_durations, None, self._spans)

    def _finished(self) -> Numbers:
        return {
            (*counts.labels, code): counts.finished[number]
            for counts in self._counts.values()
            for number, code in enumerate(CODES)
        }

    def _each(self, field: str) -> Numbers:
        return {counts.labels: getattr(counts, field) for counts in self._counts.values()}


class ObservedMethod:
    """Is told of each call of one method."""

    __slots__ = ("_counts", "_durations", "_slow", "_spans")

    def __init__(
        self, counts: _Counts, durations: Histogram, slow: SlowRequests | None, spans: "ServerSpans | None"
    ) -> None:
        self._counts = counts
        self._durations = durations
        self._slow = slow
        self._spans = spans

    def begin(self, call: Call, request_bytes: int) -> "ObservedCall":
        """Notes that a call begins, in the task that handles it."""
        self._counts.in_flight += 1
        self._counts.request_bytes += request_bytes
        NOTES.set(call.notes)
        span = None if self._spans is None else self._spans.begin(call)
        return ObservedCall(self, call, span)

    def end(self, watched: "ObservedCall", code: int, response_bytes: int, request: Message | None) -> None:
        """Notes how a call ended."""
        elapsed_s = time.perf_counter() - watched.began
        counts = self._counts
        counts.in_flight -= 1
        counts.finished[code] += 1
        counts.response_bytes += response_bytes
        bound = counts.durations.get(code)
        if bound is None:
            bound = counts.durations[code] = self._durations.labels(*counts.labels, CODES[code])
        bound.observe(elapsed_s)
        if self._slow is not None and elapsed_s >= self._slow.threshold_s:
            self._slow.note(watched.call, CODES[code], elapsed_s, request)
        if self._spans is not None and watched.span is not None:
            self._spans.end(watched.span, CODES[code])

    def count_message(self, size_bytes: int) -> None:
        """Counts one message of a stream."""
        self._counts.messages += 1
        self._counts.response_bytes += size_bytes


class ObservedCall:
    """One call under way.

    Attributes:
        call: The call.
        span: Its span, None if nothing is traced.
        began: When, by `time.perf_counter`.
    """

    __slots__ = ("_method", "began", "call", "span")

    def __init__(self, method: ObservedMethod, call: Call, span: "tuple[Span, object] | None") -> None:
        self._method = method
        self.call = call
        self.span = span
        self.began = time.perf_counter()

    def count_message(self, size_bytes: int) -> None:
        """Counts one message of a stream."""
        self._method.count_message(size_bytes)

    def end(self, code: int, response_bytes: int = 0, request: Message | None = None) -> None:
        """Notes how it ended.

        Args:
            code: Number of the status.
            response_bytes: Of the one answer; 0 for a stream, whose messages were counted as they went.
            request: What was asked, if it could be read.
        """
        self._method.end(self, code, response_bytes, request)
