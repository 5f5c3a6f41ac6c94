"""More requests than can be answered in time: who is refused learns it at once, and when to come back."""

import asyncio
from functools import partial

import grpc
import pytest
from marquee.client.errors import read_error
from marquee.v1 import model_service_pb2 as pb


def rate(user_id):
    return pb.PredictRatingRequest(user=pb.UserSelector(user_id=user_id), movie_id="heat")


@pytest.fixture
async def model(start, train, features):
    """A service with room for one batch under way and two rows waiting, and a store that holds its answers back."""
    train("v1")
    async with start(
        max_batches_in_flight=1, max_waiting_rows=2, max_bulk_rows=1000, catalogue_poll_s=3600.0, drain_timeout_s=0.1
    ) as stub:
        features.gate.clear()
        yield stub
        features.gate.set()


async def under_way(features, first, *others):
    """Starts one call, waits until the store holds it back, and starts the others; a call starts when it is made."""
    tasks = [asyncio.ensure_future(first())]
    while not features.reads:  # noqa: ASYNC110 the read is of another loop turn, with nothing to wait for
        await asyncio.sleep(0.001)
    tasks += [asyncio.ensure_future(other()) for other in others]
    await asyncio.sleep(0.05)
    return tasks


async def test_a_full_queue_refuses_and_says_when_to_come_back(model, features):
    """Those who wait are answered all the same."""
    waiting = await under_way(features, *(partial(model.PredictRating, rate(user)) for user in ("ann", "bob", "carl")))

    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await model.PredictRating(rate("dora"))
    features.gate.set()
    replies = await asyncio.gather(*waiting)

    error = read_error(raised.value)
    assert (error.code, error.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "QUEUE_FULL")
    assert error.retry_after_s > 0
    assert [reply.rating for reply in replies] == [4.0, 3.0, 3.0]


async def test_large_requests_do_not_shut_out_small_ones(model, features):
    """Each has a queue of its own."""
    many = [pb.UserSelector(user_id=f"u{number}") for number in range(100)]
    batch = partial(model.BatchTopK, pb.BatchTopKRequest(users=many, k=1))
    waiting = await under_way(features, partial(model.PredictRating, rate("ann")), batch)
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await batch()

    small = asyncio.ensure_future(model.PredictRating(rate("bob")))
    await asyncio.sleep(0.05)
    features.gate.set()
    _, lists, reply = await asyncio.gather(*waiting, small)

    assert raised.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert (len(lists.results), reply.rating) == (100, 3.0)
    assert features.reads[1] == ["bob"]


async def test_callers_whose_time_is_up_are_not_read_for(model, features):
    """They left while they waited: the store is asked for those who are still there."""
    waiting = await under_way(
        features,
        partial(model.PredictRating, rate("ann")),
        partial(model.PredictRating, rate("bob"), timeout=0.1),
        partial(model.PredictRating, rate("carl")),
    )
    outcome = (await asyncio.gather(waiting[1], return_exceptions=True))[0]
    await asyncio.sleep(0.05)
    features.gate.set()
    await asyncio.gather(waiting[0], waiting[2])

    assert outcome.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert features.reads == [["ann"], ["carl"]]
