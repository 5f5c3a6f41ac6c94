"""Every call is counted under the code that its caller sees; slow ones are kept without anything personal."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import grpc
import grpc.aio
import pytest
from google.protobuf.struct_pb2 import Struct
from prometheus_client.parser import text_string_to_metric_families

from service_runtime.calls import Call
from service_runtime.errors import NotFound, ResourceExhausted
from service_runtime.health import Health
from service_runtime.metrics import Metrics
from service_runtime.observation import CODES, Observation
from service_runtime.server import Server, Service
from service_runtime.slow_requests import SlowRequests
from tests.service_runtime.echo import ECHO, EchoHandlers


class Observed:
    """A server, a channel to it, and what was counted."""

    def __init__(self, metrics: Metrics, handlers: EchoHandlers, channel: grpc.aio.Channel, slow: SlowRequests):
        self.metrics = metrics
        self.handlers = handlers
        self.channel = channel
        self.slow = slow

    async def say(self, payload: bytes = b"", method: str = "SayBack", **kwargs):
        behind: Any = self.channel.unary_unary(f"/echo.Echo/{method}")
        return await behind(payload, **kwargs)

    async def fails(self, **kwargs):
        with pytest.raises(grpc.aio.AioRpcError):
            await self.say(**kwargs)

    def read(self, name: str, **labels: str) -> float:
        for family in text_string_to_metric_families(self.metrics.text()):
            for sample in family.samples:
                if sample.name == name and labels.items() <= sample.labels.items():
                    return sample.value
        raise AssertionError(f"no {name} {labels}")

    async def until(self, wanted: float, name: str, **labels: str) -> None:
        async with asyncio.timeout(20):
            while self.read(name, **labels) != wanted:  # noqa: ASYNC110  a scrape tells nobody when it changes
                await asyncio.sleep(0.01)


@pytest.fixture
async def observed() -> AsyncIterator[Observed]:
    metrics, handlers, slow = Metrics("oven"), EchoHandlers(), SlowRequests(threshold_s=3600)
    observation = Observation(metrics, slow)
    async with (
        Server(
            [Service(ECHO, handlers)],
            Health([], []),
            listen="127.0.0.1:0",
            drain_timeout_s=1.0,
            observation=observation,
        ) as server,
        grpc.aio.insecure_channel(server.address) as channel,
    ):
        yield Observed(metrics, handlers, channel, slow)


def payload_of(**fields: str) -> bytes:
    struct = Struct()
    struct.update(fields)
    return struct.SerializeToString()


async def test_an_answer_is_counted_timed_and_weighed(observed):
    """One call adds one to its code, one to the histogram, and its bytes both ways."""
    payload = payload_of(film="Alien")

    await observed.say(payload)

    await observed.until(1, "marquee_rpc_finished_total", service="Echo", method="SayBack", code="OK")
    assert observed.read("marquee_rpc_duration_seconds_count", method="SayBack", code="OK") == 1
    assert observed.read("marquee_rpc_request_bytes_total", method="SayBack") == len(payload)
    assert observed.read("marquee_rpc_response_bytes_total", method="SayBack") == len(payload)


async def test_every_code_is_there_before_it_happens(observed):
    """A rise from 0 to 1 is a rise; one from nothing to 1 is not, to Prometheus."""
    zeros = [observed.read("marquee_rpc_finished_total", method="SayBack", code=code) for code in CODES]

    assert zeros == [0] * 17


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (NotFound("film", ["Alien"]), "NOT_FOUND"),
        (ResourceExhausted("full", retry_after_s=1), "RESOURCE_EXHAUSTED"),
        (RuntimeError("a bug"), "INTERNAL"),
    ],
)
async def test_failures_are_counted_under_their_code(observed, error, code):
    """Named failures and bugs alike."""
    observed.handlers.error = error

    await observed.fails()

    await observed.until(1, "marquee_rpc_finished_total", method="SayBack", code=code)
    assert observed.read("marquee_rpc_duration_seconds_count", method="SayBack", code=code) == 1


async def test_bytes_that_are_no_request_count_as_invalid(observed):
    """What never reached a handler is counted too."""
    await observed.fails(payload=b"\xff\xff")

    await observed.until(1, "marquee_rpc_finished_total", method="SayBack", code="INVALID_ARGUMENT")


async def test_a_call_under_way_is_seen_and_a_cancelled_one_counted(observed):
    """A caller who goes away ends his call as CANCELLED."""
    observed.handlers.gate = asyncio.Event()
    call = observed.channel.unary_unary("/echo.Echo/SayBack")(b"")
    await observed.until(1, "marquee_rpc_in_flight", method="SayBack")

    call.cancel()

    await observed.until(1, "marquee_rpc_finished_total", method="SayBack", code="CANCELLED")
    await observed.until(0, "marquee_rpc_in_flight", method="SayBack")


async def test_a_deadline_that_passes_is_no_cancellation(observed):
    """GRPC cancels the handler of both; the caller sees two codes, and so do we."""
    observed.handlers.gate = asyncio.Event()

    await observed.fails(timeout=0.2)

    await observed.until(1, "marquee_rpc_finished_total", method="SayBack", code="DEADLINE_EXCEEDED")


async def test_streams_are_counted_by_message_and_timed_apart(observed):
    """A stream that lasts for hours is no slow answer."""
    answers = [answer async for answer in observed.channel.unary_stream("/echo.Echo/SayOn")(payload_of(film="Alien"))]

    await observed.until(1, "marquee_rpc_finished_total", method="SayOn", code="OK")
    assert observed.read("marquee_rpc_stream_messages_total", method="SayOn") == len(answers) == 3
    assert observed.read("marquee_rpc_response_bytes_total", method="SayOn") == sum(map(len, answers))
    assert observed.read("marquee_rpc_stream_duration_seconds_count", method="SayOn", code="OK") == 1


async def test_a_slow_request_is_kept_without_its_texts(observed):
    """The page tells the method, the time and the shape of the request; no text of it and no id of the caller."""
    observed.slow.threshold_s = 0.0

    await observed.say(payload_of(film="Alien"), metadata=(("x-request-id", "from-ripley"),))

    await observed.until(1, "marquee_rpc_finished_total", method="SayBack", code="OK")
    text = json.dumps(observed.slow.page())
    (kept,) = observed.slow.page()["requests"]
    assert kept["method"] == "/echo.Echo/SayBack"
    assert kept["elapsed_ms"] > 0
    assert kept["request"] == {"fields": {"count": 1}}
    assert "Alien" not in text
    assert "ripley" not in text


def test_slow_requests_are_bounded_and_newest_first():
    """However many are slow, so many are kept, and telling of them takes time once in a while only."""
    now = iter(range(1000))
    slow = SlowRequests(0.1, capacity=3, clock=lambda: next(now))

    for number in range(5):
        slow.note(Call(f"/echo.Echo/{number}", None, "id"), "OK", 0.2, None)

    assert [kept["method"][-1] for kept in slow.page()["requests"]] == ["4", "3", "2"]
    assert slow.page()["num_slow"] == 5


def test_slow_requests_at_one_moment_are_counted_and_one_is_kept():
    """When everything is slow, telling of it must not make it slower."""
    slow = SlowRequests(0.1, clock=lambda: 7.0)

    for _ in range(5):
        slow.note(Call("/echo.Echo/SayBack", None, "id"), "OK", 0.2, None)

    assert slow.page()["num_slow"] == 5
    assert len(slow.page()["requests"]) == 1


def test_equal_texts_have_equal_hashes_in_one_process_only():
    """The same user is seen to be slow again; nobody can be found by trying ids."""
    one, other = SlowRequests(0.1, clock=iter(range(9)).__next__), SlowRequests(0.1)
    for slow in (one, one, other):
        slow.note(Call("/echo.Echo/SayBack", None, "ripley"), "OK", 0.2, None)

    newer, older = one.page()["requests"]

    assert newer["request_id"] == older["request_id"]
    assert newer["request_id"] != other.page()["requests"][0]["request_id"]
