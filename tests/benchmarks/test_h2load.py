"""Loads by h2load ask what they are told, and know an error from an answer."""

import shutil
from collections.abc import Iterator

import pytest

from benchmarks.h2load import Target, closed_loop, steady
from benchmarks.serving_cost import empty_server

BODIES = [b"one", b"another"]

pytestmark = pytest.mark.skipif(shutil.which("h2load") is None, reason="h2load is not installed (nghttp2-client)")


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with empty_server() as serving:
        yield serving.address


def test_every_question_is_answered_and_timed(address):
    """As many latencies come back as questions were asked, each of them a time."""
    loaded = closed_loop(Target("grpc", address, "/empty/Call", BODIES), 200)

    assert loaded.count == 200
    assert loaded.latencies_ms.min() > 0
    assert loaded.per_s > 0


def test_a_steady_rate_is_kept(address):
    """A hundred questions a second stay about that, however fast the answers are."""
    loaded = steady(Target("grpc", address, "/empty/Call", BODIES), per_s=100, seconds=1)

    assert loaded.count == 100
    assert loaded.per_s < 150


def test_an_error_is_no_answer(address):
    """A gRPC error is HTTP 200 to h2load; it carries no message, and that is noticed."""
    refused = Target("grpc", address, "/grpc.health.v1.Health/NoSuchMethod", BODIES)

    with pytest.raises(RuntimeError, match="some are errors"):
        closed_loop(refused, 200)


def test_an_answer_that_is_too_short_is_no_answer(address):
    """Who knows how long an answer is at least hears of those that are shorter."""
    with pytest.raises(RuntimeError, match="some are errors"):
        closed_loop(Target("grpc", address, "/empty/Call", BODIES, min_answer_bytes=1000), 200)
