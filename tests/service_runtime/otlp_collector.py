"""A collector of traces: a gRPC server with OTLP's TraceService that keeps what it is sent."""

import threading
import time
from collections.abc import Iterator
from concurrent import futures
from contextlib import contextmanager
from dataclasses import dataclass, field

import grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc
from opentelemetry.proto.trace.v1.trace_pb2 import Span


@dataclass
class Collector(trace_service_pb2_grpc.TraceServiceServicer):
    """What has arrived: spans with the name of the service that sent them."""

    endpoint: str = ""
    spans: list[tuple[str, Span]] = field(default_factory=list)
    _changed: threading.Condition = field(default_factory=threading.Condition)

    def Export(self, request, context):  # noqa: N802  the name of the RPC
        with self._changed:
            for resource in request.resource_spans:
                (service,) = [
                    attribute.value.string_value
                    for attribute in resource.resource.attributes
                    if attribute.key == "service.name"
                ]
                self.spans += [(service, span) for scope in resource.scope_spans for span in scope.spans]
            self._changed.notify_all()
        return trace_service_pb2.ExportTraceServiceResponse()

    def wait_for(self, names: set[str], timeout_s: float = 60.0) -> dict[str, Span]:
        """Returns the last span of each name once there is one of each."""
        deadline = time.monotonic() + timeout_s
        with self._changed:
            while True:
                found = {span.name: span for _, span in self.spans}
                if names <= set(found):
                    return found
                if not self._changed.wait(deadline - time.monotonic()):
                    raise AssertionError(f"no spans {sorted(names - set(found))} after {timeout_s:g} s")


@contextmanager
def collecting() -> Iterator[Collector]:
    """Runs a collector on a free port."""
    server = grpc.server(futures.ThreadPoolExecutor(2))
    collector = Collector()
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(collector, server)
    collector.endpoint = f"http://127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    try:
        yield collector
    finally:
        server.stop(None)
