"""How many calls wait for the loop is bounded by the time that answering them takes."""

import asyncio
import time

import grpc
import pytest
from google.protobuf.struct_pb2 import Struct
from marquee.client.errors import read_error

from service_runtime.health import Health
from service_runtime.pending_calls import FEWEST, MOST, derived_options, limit_for, measure_call_s, pending_options
from service_runtime.server import Server, Service
from tests.service_runtime.echo import ECHO, EchoHandlers

LIMIT = 8
NUM_CALLS = 60


async def outcomes_of_calls_while_the_loop_is_busy(options):
    """Calls many times while the server's loop does something else, and then lets it answer."""
    server = Server([Service(ECHO, EchoHandlers())], Health(["echo.Echo"], []), listen="127.0.0.1:0",
                    drain_timeout_s=1.0, options=options)  # fmt: skip
    async with server:
        with grpc.insecure_channel(server.address) as channel:
            say_back = channel.unary_unary("/echo.Echo/SayBack", Struct.SerializeToString, Struct.FromString)
            await asyncio.to_thread(say_back, Struct(), timeout=30)
            calls = [say_back.future(Struct(), timeout=30) for _ in range(NUM_CALLS)]
            time.sleep(0.5)  # noqa: ASYNC251 so long the loop takes no call
            await asyncio.gather(*(asyncio.to_thread(call.exception) for call in calls))
    return [call.exception() for call in calls]


async def test_calls_beyond_the_limit_are_refused_and_the_others_answered():
    """Those learn it before the loop hears of them, and the client's library says what that means."""
    outcomes = await outcomes_of_calls_while_the_loop_is_busy(pending_options(LIMIT))

    refusals = [outcome for outcome in outcomes if outcome is not None]
    # Beside those that wait, the loop has one in its hand.
    assert LIMIT * 3 // 4 <= NUM_CALLS - len(refusals) <= LIMIT + 1
    assert {refusal.code() for refusal in refusals} == {grpc.StatusCode.CANCELLED}
    assert {read_error(refusal).reason for refusal in refusals} == {"NOT_TAKEN"}


async def test_without_a_limit_of_ours_all_of_them_wait():
    """What gRPC allows by itself is more than anybody waits for."""
    outcomes = await outcomes_of_calls_while_the_loop_is_busy([])

    assert outcomes == [None] * NUM_CALLS


@pytest.mark.parametrize(
    ("wait_s", "call_s", "limit"),
    [(0.1, 0.0005, 200), (0.1, 0.00025, 400), (0.1, 0.05, FEWEST), (10.0, 0.0005, MOST)],
)
def test_the_limit_is_what_can_be_answered_within_the_wait(wait_s, call_s, limit):
    """Within bounds: a slow machine still takes a burst, a fast one no more than gRPC itself."""
    assert limit_for(wait_s, call_s) == limit


async def test_a_limit_that_is_given_is_not_measured():
    """An operator knows better."""
    assert await derived_options(300, wait_s=0.1) == [
        ("grpc.server.max_pending_requests", 225),
        ("grpc.server.max_pending_requests_hard_limit", 300),
    ]


async def test_an_empty_call_costs_what_the_process_spent_on_it():
    """No more processor time than went by while all of them were made, and more than nothing."""
    before = time.process_time()

    call_s = await measure_call_s()

    assert 0 < call_s < time.process_time() - before
