"""On a cluster nothing acknowledged by a replica is lost when a master dies, and subscribers hear that it did."""

import asyncio
import signal
from collections.abc import AsyncIterator

import grpc
import pytest
import uvloop
from marquee.client.channel import open_channel
from marquee.client.errors import read_error
from marquee.v1 import feature_service_pb2 as pb2
from marquee.v1 import feature_service_pb2_grpc
from pydantic import SecretStr

from feature_service.__main__ import serving
from feature_service.cluster_link import ClusterLink
from feature_service.keys import user_keys
from feature_service.settings import FeatureSettings
from tests.feature_server import until_ready
from tests.feature_service import messages as make
from tests.redis_cluster import NUM_MASTERS, until

pytestmark = pytest.mark.timeout(120)


@pytest.fixture
async def stub(own_cluster) -> AsyncIterator[feature_service_pb2_grpc.FeatureServiceStub]:
    """A service that waits for replicas, over 300 movies."""
    own_cluster.flush()
    settings = FeatureSettings(
        redis_url=SecretStr(own_cluster.url),
        redis_cluster=True,
        write_ack="replica",
        redis_timeout_s=2,
        listen="127.0.0.1:0",
        drain_timeout_s=1.0,
    )
    async with serving(settings) as server, open_channel(server.address) as channel:
        await until_ready(channel)
        stub = feature_service_pb2_grpc.FeatureServiceStub(channel)
        await stub.BatchUpsertMovies(make.movies(300))
        yield stub


async def write_until_acknowledged(stub, event: pb2.Event) -> int:
    """Writes an event again and again, as a caller is told to, and returns its status."""
    for _ in range(200):
        try:
            return (await stub.WriteEvents(make.write(event), timeout=5)).results[0].status
        except grpc.aio.AioRpcError as error:
            if error.code() not in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED):
                raise
            await asyncio.sleep(0.1)
    raise AssertionError("the cluster did not come back")


async def write(stub, number: int) -> str:
    """Writes one event of one user and returns him."""
    user_id = f"user {number}"
    status = await write_until_acknowledged(stub, make.event(f"e{number}", user_id, f"m{number % 300}"))
    assert status in (pb2.EVENT_STATUS_APPLIED, pb2.EVENT_STATUS_DUPLICATE)
    return user_id


async def test_users_of_all_servers_come_in_one_answer(stub):
    """Their order is that of the request, whichever server holds them."""
    user_ids = [await write(stub, number) for number in range(100)]

    users = (await stub.BatchGetUsers(make.users(*user_ids))).users

    assert [user.user_id for user in users] == user_ids
    assert all(len(user.history) == 1 for user in users)
    assert len({user_keys(user_id).partition for user_id in user_ids}) > 40


def test_a_connection_that_is_being_hung_up_is_a_connection_lost(own_cluster):
    """redis-py may let one be used while it closes it, of which uvloop makes a RuntimeError: it is tried again."""

    async def write_on_closing_connections() -> list[object]:
        link = ClusterLink(own_cluster.url, timeout_s=20, max_connections=4)
        await link.probe()
        commands = [("SET", f"{{p{number}}}:hung-up", "1") for number in range(8)]
        await link.commands(commands)
        for node in link._cluster.get_primaries():
            for connection in node._connections:
                assert connection._writer is not None
                connection._writer.close()
        answers = await link.commands(commands)
        await link.close()
        return answers

    assert uvloop.run(write_on_closing_connections()) == [True] * 8


async def test_without_replicas_a_write_is_not_acknowledged(own_cluster, stub):
    """It is stored, and the caller is told that it might be lost: repeating it is safe."""
    await write(stub, 0)
    replicas = own_cluster.processes[NUM_MASTERS:]
    for replica in replicas:
        replica.send_signal(signal.SIGSTOP)
    try:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await stub.WriteEvents(make.write(make.event("e1", "somebody", "m1")), timeout=10)
    finally:
        for replica in replicas:
            replica.send_signal(signal.SIGCONT)

    assert read_error(refused.value).reason == "NOT_REPLICATED"
    assert await write_until_acknowledged(stub, make.event("e1", "somebody", "m1")) == pb2.EVENT_STATUS_DUPLICATE


async def test_a_master_that_is_killed_loses_nothing_acknowledged(own_cluster, stub):
    """Writes go on through the failover; afterwards every acknowledged event is there, once."""
    feed = stub.StreamChanges(pb2.StreamChangesRequest())
    assert (await feed.read()).reset
    written: list[str] = []
    some_are_written = asyncio.Event()

    async def write_some(numbers: range) -> None:
        for number in numbers:
            written.append(await write(stub, number))
            if len(written) == 40:
                some_are_written.set()

    writing = asyncio.gather(*(write_some(range(start, 400, 8)) for start in range(8)))
    await asyncio.wait_for(some_are_written.wait(), 60)

    own_cluster.processes[1].kill()
    replica = own_cluster.server(NUM_MASTERS + 1)
    await asyncio.to_thread(until, lambda: replica.info("replication")["role"] == "master", "a replica takes over")
    # Without it the new master has no replica, and no write to it would be acknowledged.
    own_cluster.processes[1] = own_cluster.start(own_cluster.ports[1])
    await writing

    assert len(written) == 400
    for start in range(0, len(written), 200):
        users = (await stub.BatchGetUsers(make.users(*written[start : start + 200], history_limit=10))).users
        assert all(len(user.history) == 1 for user in users)
    async with asyncio.timeout(20):
        while not (await feed.read()).reset:
            pass
    feed.cancel()
