"""Traces calls by OpenTelemetry: W3C trace context in and out, spans to a collector by OTLP. Knows no RPC by name.

Spans hold the name of the method, the status and sizes of batches: no id, no text of a request. Baggage is not passed
on: it may hold anything.
"""

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import Context
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio
import structlog
from opentelemetry import context as contexts
from opentelemetry import trace
from opentelemetry.trace import Link, Span, SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from service_runtime.calls import Call

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

_log = structlog.get_logger(__name__)
_PROPAGATOR = TraceContextTextMapPropagator()
# What OpenTelemetry's conventions call a server's fault; the others are the caller's.
_FAULTS = {"UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"}
_EXPORT_TIMEOUT_S = 5.0

Running = tuple[Span, object]


class Tracing:
    """Makes the spans of one process."""

    def __init__(self, provider: "TracerProvider") -> None:
        self._tracer = provider.get_tracer("marquee")
        self.server_spans = ServerSpans(self._tracer)

    def interceptors(self) -> list[grpc.aio.ClientInterceptor]:
        """Returns what a channel needs so that its calls are spans and pass the trace on."""
        return [_ClientSpans(self._tracer)]

    @contextmanager
    def batch(self, name: str, members: Sequence[Context], **numbers: int) -> Iterator[None]:
        """Makes a span of work that is done for several calls at once.

        It belongs to the trace of the first call that is traced, and links to the others; of no such call, to no trace.

        Args:
            name: What is done.
            members: The contexts of the calls, as of when they asked.
            numbers: Attributes, under "marquee.".
        """
        asked = [found for context in members if (found := context.run(trace.get_current_span)).is_recording()]
        if not asked:
            # Not what happens to be current: that is the trace of whoever set the work off.
            with trace.use_span(trace.INVALID_SPAN):
                yield
            return
        links = [Link(span.get_span_context()) for span in asked[1:]]
        attributes = {f"marquee.{key}": number for key, number in numbers.items()}
        parent = trace.set_span_in_context(asked[0])
        with self._tracer.start_as_current_span(name, parent, links=links, attributes=attributes):
            yield


class ServerSpans:
    """Makes a span of each call that a server takes."""

    def __init__(self, tracer: trace.Tracer) -> None:
        self._tracer = tracer

    def begin(self, call: Call) -> Running:
        """Begins the span of a call and makes it current in this task."""
        name = call.method.removeprefix("/")
        span = self._tracer.start_span(
            name,
            _PROPAGATOR.extract(call.metadata),
            SpanKind.SERVER,
            attributes={"rpc.system.name": "grpc", "rpc.method": name},
        )
        return span, contexts.attach(trace.set_span_in_context(span))

    def end(self, running: Running, code: str) -> None:
        """Ends the span of a call, in the same task."""
        span, token = running
        _end(span, code)
        contexts.detach(token)  # type: ignore[arg-type]


class _ClientSpans(grpc.aio.UnaryUnaryClientInterceptor):
    """Makes a span of each unary call of a channel, and tells the server of it."""

    def __init__(self, tracer: trace.Tracer) -> None:
        self._tracer = tracer

    async def intercept_unary_unary(
        self, continuation: Any, client_call_details: grpc.aio.ClientCallDetails, request: Any
    ) -> Any:
        """Sends the call with a traceparent beside its other metadata."""
        method = client_call_details.method
        name = (method.decode() if isinstance(method, bytes) else method).removeprefix("/")
        attributes = {"rpc.system.name": "grpc", "rpc.method": name}
        span = self._tracer.start_span(name, kind=SpanKind.CLIENT, attributes=attributes)
        carrier: dict[str, str] = {}
        _PROPAGATOR.inject(carrier, trace.set_span_in_context(span))
        metadata = grpc.aio.Metadata(*(client_call_details.metadata or ()), *carrier.items())
        given = client_call_details
        details = grpc.aio.ClientCallDetails(
            given.method, given.timeout, metadata, given.credentials, given.wait_for_ready
        )
        # Of a call that ends in no way that gRPC knows: what was raised says it.
        code = "UNKNOWN"
        call: Any = None
        try:
            call = await continuation(details, request)
            code = (await call.code()).name
        except asyncio.CancelledError:
            if call is not None:
                call.cancel()
            code = "CANCELLED"
            raise
        except grpc.aio.AioRpcError as error:
            code = error.code().name
            raise
        finally:
            _end(span, code)
        return call


def _end(span: Span, code: str) -> None:
    if span.is_recording():
        span.set_attribute("rpc.response.status_code", code)
        if code in _FAULTS:
            span.set_status(Status(StatusCode.ERROR))
    span.end()


def open_tracing(service: str, endpoint: str, sample_ratio: float) -> AbstractContextManager[Tracing | None]:
    """Traces while a `with` block lasts; gives None without an endpoint.

    Args:
        service: Name of the process.
        endpoint: http://host:port or https://host:port of a collector that speaks OTLP over gRPC; empty for none.
        sample_ratio: Share of the traces begun here that are recorded; a caller's own decision is followed.
    """
    return _sending(service, endpoint, sample_ratio) if endpoint else nullcontext()


@contextmanager
def _sending(service: str, endpoint: str, sample_ratio: float) -> Iterator[Tracing]:
    # A second of processor time and 20 MB that only those pay for who trace.
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor
    from opentelemetry.sdk.trace.sampling import ParentBasedTraceIdRatio

    provider = TracerProvider(
        sampler=ParentBasedTraceIdRatio(sample_ratio),
        resource=Resource.create({"service.name": service, "service.namespace": "marquee"}),
        shutdown_on_exit=False,
    )
    exporter = OTLPSpanExporter(endpoint, insecure=endpoint.startswith("http://"), timeout=_EXPORT_TIMEOUT_S)
    provider.add_span_processor(BatchSpanProcessor(exporter))
    _log.info("tracing", endpoint=endpoint, sample_ratio=sample_ratio)
    try:
        yield Tracing(provider)
    finally:
        provider.shutdown()
