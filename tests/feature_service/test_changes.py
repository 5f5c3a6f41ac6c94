"""Whoever changes a user, subscribers hear of it, and they hear when nobody can tell any more."""

import asyncio
from collections.abc import AsyncIterator

import grpc
import pytest
import redis
from marquee.client.channel import open_channel
from marquee.client.errors import read_error
from marquee.v1 import feature_service_pb2 as pb2
from marquee.v1 import feature_service_pb2_grpc

from feature_service.__main__ import serving
from feature_service.change_ring import MAX_SUBSCRIBERS
from feature_service.settings import FeatureSettings
from tests.feature_server import until_ready
from tests.feature_service import messages as make
from tests.redis_server import ON_CLUSTER

# A cluster has to be told which server to ask; one server takes no such word.
A_MASTER = {"target_nodes": redis.RedisCluster.RANDOM} if ON_CLUSTER else {}


@pytest.fixture
async def stub(feature_stub):
    """A store with three movies."""
    await feature_stub.BatchUpsertMovies(make.movies(3))
    return feature_stub


class Feed:
    """One subscription."""

    def __init__(self, stub, position: str = "") -> None:
        self.stream = stub.StreamChanges(pb2.StreamChangesRequest(position=position))

    async def next(self) -> pb2.StreamChangesResponse:
        async with asyncio.timeout(10):
            return await self.stream.read()

    async def until(self, condition) -> pb2.StreamChangesResponse:
        async with asyncio.timeout(10):
            while not condition(answer := await self.stream.read()):
                pass
            return answer

    async def live(self) -> "Feed":
        await self.until(lambda answer: answer.live)
        return self


@pytest.fixture
async def feed(stub) -> AsyncIterator[Feed]:
    """A subscription that is live."""
    feed = await Feed(stub).live()
    yield feed
    feed.stream.cancel()


async def test_every_kind_of_change_is_told(stub, feed):
    """Events, profiles, imports and deletions name their user, the catalogue itself."""
    await stub.WriteEvents(make.write(make.event(user_id="watched")))
    assert list((await feed.until(lambda answer: answer.user_ids)).user_ids) == ["watched"]
    await stub.BatchUpsertUsers(make.upsert_user("profiled", age=30))
    assert list((await feed.until(lambda answer: answer.user_ids)).user_ids) == ["profiled"]
    await stub.ImportHistories(make.import_histories({"imported": [("m1", 3, 0)]}))
    assert list((await feed.until(lambda answer: answer.user_ids)).user_ids) == ["imported"]
    await stub.DeleteUser(pb2.DeleteUserRequest(user_id="watched"))
    assert list((await feed.until(lambda answer: answer.user_ids)).user_ids) == ["watched"]
    await stub.BatchUpsertMovies(make.movies(1, first=3))
    assert (await feed.until(lambda answer: answer.catalogue_changed)).live


async def test_the_deletion_of_who_is_not_stored_is_told(stub, feed):
    """A trained model may know him, and must not answer from what it learnt of him."""
    await stub.DeleteUser(pb2.DeleteUserRequest(user_id="stranger"))

    await feed.until(lambda answer: "stranger" in answer.user_ids)


async def test_a_change_by_another_replica_is_told(stub, feed, redis_settings):
    """The feed comes from Redis, not from the calls of this process."""
    settings = FeatureSettings(**redis_settings, listen="127.0.0.1:0", drain_timeout_s=1.0, max_pending_calls=1000)
    async with serving(settings) as other, open_channel(other.address) as channel:
        await until_ready(channel)
        other_stub = feature_service_pb2_grpc.FeatureServiceStub(channel)
        await other_stub.WriteEvents(make.write(make.event(user_id="elsewhere")))

        assert list((await feed.until(lambda answer: answer.user_ids)).user_ids) == ["elsewhere"]


async def test_a_quiet_store_says_so(feed):
    """An answer without changes comes every second."""
    answer = await feed.next()

    assert answer.live
    assert not answer.reset
    assert not answer.user_ids


async def test_a_subscriber_resumes_over_a_new_connection(stub, feed):
    """What happened in between is told without a reset."""
    position = (await feed.next()).position
    feed.stream.cancel()
    await stub.WriteEvents(make.write(make.event(user_id="meanwhile")))

    again = Feed(stub, position)

    answer = await again.until(lambda answer: answer.user_ids or answer.reset)
    assert list(answer.user_ids) == ["meanwhile"]
    again.stream.cancel()


async def test_a_lost_redis_is_told(stub, feed, raw_redis):
    """While nobody can tell what changes the feed is not live; then everything is to be forgotten."""
    raw_redis.execute_command("CLIENT", "KILL", "TYPE", "pubsub", **A_MASTER)

    lost = await feed.until(lambda answer: answer.reset)
    back = await feed.until(lambda answer: answer.live)

    assert not lost.live
    assert back.reset


async def test_an_emptied_redis_is_a_reset(feed, raw_redis):
    """All users are gone at once."""
    raw_redis.flushall()

    assert (await feed.until(lambda answer: answer.reset)).live


async def test_one_subscriber_too_many_is_refused(stub):
    """With the reason; the others go on."""
    feeds = [Feed(stub) for _ in range(MAX_SUBSCRIBERS)]
    for feed in feeds:
        await feed.next()

    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await Feed(stub).next()

    assert read_error(refused.value).reason == "TOO_MANY_SUBSCRIBERS"
    for feed in feeds:
        feed.stream.cancel()
