"""Traces pass through: the caller's into our span, ours to the next server, all of it to a collector."""

import asyncio
import statistics
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from contextvars import copy_context
from typing import Any

import grpc
import grpc.aio
import pytest
from google.protobuf.struct_pb2 import Struct
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from service_runtime.errors import NotFound
from service_runtime.health import Health
from service_runtime.metrics import Metrics
from service_runtime.observation import Observation
from service_runtime.server import Call, Server, Service
from service_runtime.tracing import Tracing, open_tracing
from tests.service_runtime.echo import ECHO, EchoHandlers
from tests.service_runtime.otlp_collector import Collector, collecting

TRACE_ID = "0af7651916cd43dd8448eb211c80319c"
SPAN_ID = "b7ad6b7169203331"
SAMPLED = (("traceparent", f"00-{TRACE_ID}-{SPAN_ID}-01"),)
NOT_SAMPLED = (("traceparent", f"00-{TRACE_ID}-{SPAN_ID}-00"),)
SAY_BACK = "/echo.Echo/SayBack"


@pytest.fixture
def collector() -> Iterator[Collector]:
    with collecting() as collector:
        yield collector


@asynccontextmanager
async def serving(tracing: Tracing | None, handlers: object) -> AsyncIterator[str]:
    spans = tracing.server_spans if tracing else None
    async with Server(
        [Service(ECHO, handlers)],
        Health([], []),
        listen="127.0.0.1:0",
        drain_timeout_s=1.0,
        observation=Observation(Metrics("oven"), spans=spans),
    ) as server:
        yield server.address


class Forwarding:
    """Asks another server, as model_service asks feature_service."""

    def __init__(self, channel: grpc.aio.Channel):
        self._channel = channel

    async def say_back(self, request: Struct, call: Call) -> Struct:
        behind: Any = self._channel.unary_unary(SAY_BACK)
        return Struct.FromString(await behind(request.SerializeToString()))

    async def say_on(self, request: Struct, call: Call) -> AsyncIterator[Struct]:
        yield request


class BrokenCall:
    """A call whose end is a failure."""

    def __init__(self, failure: BaseException):
        self._failure = failure
        self.cancelled = False

    async def code(self) -> grpc.StatusCode:
        raise self._failure

    def cancel(self) -> None:
        self.cancelled = True


def aborted(code: grpc.StatusCode) -> grpc.aio.AioRpcError:
    return grpc.aio.AioRpcError(code, grpc.aio.Metadata(), grpc.aio.Metadata())


async def say_back(address: str, **kwargs: Any) -> None:
    async with grpc.aio.insecure_channel(address) as channel:
        front: Any = channel.unary_unary(SAY_BACK)
        await front(b"", **kwargs)


async def test_a_trace_passes_through_two_servers(collector):
    """The caller's trace has our server span, our client span below it, and the next server's below that."""
    with open_tracing("front_service", collector.endpoint, 1.0) as tracing:
        behind = EchoHandlers()
        async with (
            serving(tracing, behind) as back,
            grpc.aio.insecure_channel(back, interceptors=tracing.interceptors()) as channel,
            serving(tracing, Forwarding(channel)) as front,
        ):
            await say_back(front, metadata=SAMPLED)

    spans = [span for _, span in collector.spans]
    by_parent = {span.parent_span_id.hex(): span for span in spans}
    outer = by_parent[SPAN_ID]
    hop = by_parent[outer.span_id.hex()]
    inner = by_parent[hop.span_id.hex()]
    assert {span.trace_id.hex() for span in spans} == {TRACE_ID}
    assert [span.kind for span in (outer, hop, inner)] == [
        Span.SPAN_KIND_SERVER,
        Span.SPAN_KIND_CLIENT,
        Span.SPAN_KIND_SERVER,
    ]
    assert {name for name, _ in collector.spans} == {"front_service"}
    assert behind.calls[0].metadata["traceparent"] == f"00-{TRACE_ID}-{hop.span_id.hex()}-01"


async def test_a_caller_who_does_not_record_is_not_recorded(collector):
    """His decision holds, also for those behind us, whatever share we record of our own."""
    with open_tracing("front_service", collector.endpoint, 1.0) as tracing:
        behind = EchoHandlers()
        async with (
            serving(tracing, behind) as back,
            grpc.aio.insecure_channel(back, interceptors=tracing.interceptors()) as channel,
            serving(tracing, Forwarding(channel)) as front,
        ):
            await say_back(front, metadata=NOT_SAMPLED)

    assert collector.spans == []
    assert behind.calls[0].metadata["traceparent"].startswith(f"00-{TRACE_ID}-")
    assert behind.calls[0].metadata["traceparent"].endswith("-00")


async def test_a_share_of_our_own_traces_is_recorded(collector):
    """Without a traceparent the setting decides: none of them at 0."""
    with open_tracing("front_service", collector.endpoint, 0.0) as tracing:
        async with serving(tracing, EchoHandlers()) as address:
            await say_back(address)
            await say_back(address, metadata=SAMPLED)

    assert [span.trace_id.hex() for _, span in collector.spans] == [TRACE_ID]


@pytest.mark.parametrize(
    ("error", "code", "status"),
    [
        (RuntimeError("a bug"), "INTERNAL", Status.STATUS_CODE_ERROR),
        (NotFound("film", ["Alien"]), "NOT_FOUND", Status.STATUS_CODE_UNSET),
    ],
)
async def test_a_span_tells_how_its_call_ended(collector, error, code, status):
    """The code stands in it; only what is the server's fault marks it as failed, and no text of the failure leaves."""
    handlers = EchoHandlers()
    handlers.error = error
    with open_tracing("front_service", collector.endpoint, 1.0) as tracing:
        async with serving(tracing, handlers) as address:
            with pytest.raises(grpc.aio.AioRpcError):
                await say_back(address, metadata=SAMPLED)

    ((_, span),) = collector.spans
    attributes = {attribute.key: attribute.value.string_value for attribute in span.attributes}
    assert attributes["rpc.response.status_code"] == code
    assert span.status.code == status
    assert b"Alien" not in span.SerializeToString()
    assert b"a bug" not in span.SerializeToString()


async def test_a_cancelled_call_ends_its_span_and_the_call_behind_it(collector):
    """Nobody waits for the answer of a caller who has gone."""
    behind = EchoHandlers()
    behind.gate = asyncio.Event()
    with open_tracing("front_service", collector.endpoint, 1.0) as tracing:
        async with (
            serving(tracing, behind) as back,
            grpc.aio.insecure_channel(back, interceptors=tracing.interceptors()) as channel,
        ):
            call = channel.unary_unary(SAY_BACK)(b"")
            await asyncio.wait_for(behind.entered.wait(), 20)
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call

    codes = {
        span.kind: {attribute.key: attribute.value.string_value for attribute in span.attributes}[
            "rpc.response.status_code"
        ]
        for _, span in collector.spans
    }
    assert codes == {Span.SPAN_KIND_CLIENT: "CANCELLED", Span.SPAN_KIND_SERVER: "CANCELLED"}


def test_a_batch_belongs_to_the_first_traced_call_and_links_to_the_others(collector):
    """One read of the store serves many callers; it stands in one trace and is named in the others."""
    contexts = []
    with open_tracing("front_service", collector.endpoint, 0.0) as tracing:
        running = []

        def ask(number: int, flags: str) -> None:
            traceparent = f"00-{number:032x}-{number:016x}-{flags}"
            running.append(tracing.server_spans.begin(Call(SAY_BACK, None, "id", {"traceparent": traceparent}))[0])
            contexts.append(copy_context())

        for number, flags in ((1, "00"), (2, "01"), (3, "01")):
            copy_context().run(ask, number, flags)
        with tracing.batch("batch", contexts, rows=7):
            pass

    ((_, batch),) = [(name, span) for name, span in collector.spans if span.name == "batch"]
    assert int(batch.trace_id.hex(), 16) == 2
    assert [int(link.trace_id.hex(), 16) for link in batch.links] == [3]
    assert batch.parent_span_id == running[1].get_span_context().span_id.to_bytes(8, "big")
    assert [(attribute.key, attribute.value.int_value) for attribute in batch.attributes] == [("marquee.rows", 7)]


def test_nothing_is_traced_without_an_endpoint():
    """Nothing is loaded and no span is made."""
    with open_tracing("front_service", "", 1.0) as tracing:
        assert tracing is None


async def test_a_collector_that_is_away_disturbs_nobody(unused_tcp_port):
    """Calls are answered, none later than without tracing by more than a moment, and the process ends in time."""
    took_s: dict[str, list[float]] = {"traced": [], "untraced": []}
    begun = time.monotonic()
    with open_tracing("front_service", f"http://127.0.0.1:{unused_tcp_port}", 1.0) as tracing:
        async with (
            serving(tracing, EchoHandlers()) as traced,
            serving(None, EchoHandlers()) as untraced,
        ):
            for _ in range(20):
                for name, address in (("traced", traced), ("untraced", untraced)):
                    asked = time.monotonic()
                    await say_back(address, metadata=SAMPLED, timeout=10)
                    took_s[name].append(time.monotonic() - asked)
        leaving = time.monotonic()
    left = time.monotonic()

    # The exporter gives a collector five seconds: a call that waited for it would take as long.
    assert statistics.median(took_s["traced"]) < statistics.median(took_s["untraced"]) + 0.5
    assert max(took_s["traced"]) < 5
    # A flush of what is left, which is given up after those five seconds.
    assert left - leaving < 15
    assert left - begun < 30


@pytest.mark.parametrize(
    ("failure", "code"),
    [
        (RuntimeError("no connection"), "UNKNOWN"),
        (asyncio.CancelledError(), "CANCELLED"),
        (aborted(grpc.StatusCode.UNAVAILABLE), "UNAVAILABLE"),
    ],
)
@pytest.mark.parametrize("at", ["sending", "ending"])
async def test_a_call_that_cannot_be_made_ends_its_span(collector, failure, code, at):
    """Whatever is raised on the way, and wherever: it comes through as it is, and the span says what became of it."""
    broken = BrokenCall(failure)

    async def send(details: Any, request: Any) -> BrokenCall:
        if at == "sending":
            raise failure
        return broken

    details = grpc.aio.ClientCallDetails(SAY_BACK.encode(), None, None, None, None)
    with open_tracing("front_service", collector.endpoint, 1.0) as tracing:
        (interceptor,) = tracing.interceptors()
        with pytest.raises(type(failure)) as raised:
            await interceptor.intercept_unary_unary(send, details, b"")

    ((_, span),) = collector.spans
    attributes = {attribute.key: attribute.value.string_value for attribute in span.attributes}
    assert raised.value is failure
    assert attributes["rpc.response.status_code"] == code
    assert broken.cancelled == (at == "ending" and code == "CANCELLED")
