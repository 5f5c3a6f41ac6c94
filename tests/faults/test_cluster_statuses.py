"""Each way in which a cluster fails has a status and a reason, or is not noticed at all."""

import asyncio
import time
from collections.abc import AsyncIterator

import grpc
import pytest
import redis
from marquee.client.channel import open_channel
from marquee.client.errors import read_error
from marquee.v1 import feature_service_pb2 as pb2
from marquee.v1 import feature_service_pb2_grpc
from pydantic import SecretStr
from redis.crc import key_slot

from feature_service.__main__ import serving
from feature_service.keys import user_keys
from feature_service.redis_link import RedisLink
from feature_service.settings import FeatureSettings
from service_runtime.errors import Unavailable
from tests.faults.refusing import NO_RETRIES, configured, refusal
from tests.feature_server import until_ready
from tests.feature_service import messages as make
from tests.redis_cluster import NUM_MASTERS, Cluster

pytestmark = pytest.mark.timeout(120)
PAUSE_MS = 600
USER = "a user of some slot"
SLOT = key_slot(user_keys(USER).state)
MASTER = SLOT * NUM_MASTERS // 16_384


@pytest.fixture
async def stub(own_cluster) -> AsyncIterator[feature_service_pb2_grpc.FeatureServiceStub]:
    """A ready service over 300 movies, in which nobody is stored."""
    own_cluster.flush()
    settings = FeatureSettings(
        redis_url=SecretStr(own_cluster.url), redis_cluster=True, listen="127.0.0.1:0", drain_timeout_s=1.0
    )
    async with serving(settings) as server, open_channel(server.address, options=NO_RETRIES) as channel:
        await until_ready(channel)
        stub = feature_service_pb2_grpc.FeatureServiceStub(channel)
        await stub.BatchUpsertMovies(make.movies(300))
        yield stub


async def write(stub, timeout_s: float = 30) -> int:
    reply = await stub.WriteEvents(make.write(make.event(user_id=USER)), timeout=timeout_s)
    return reply.results[0].status


async def until_well(stub) -> None:
    """Waits until the user can be written to again."""
    async with asyncio.timeout(30):
        while True:
            try:
                await write(stub)
            except grpc.aio.AioRpcError as error:
                if not read_error(error).reason.startswith("REDIS_"):
                    raise
                await asyncio.sleep(0.1)
            else:
                return


async def test_a_server_that_is_slow(own_cluster, stub):
    """A caller who waits no longer sees his deadline, one who does is answered."""
    with own_cluster.server(MASTER) as server:
        server.execute_command("CLIENT", "PAUSE", PAUSE_MS, "ALL")
    began = time.monotonic()
    impatient = await refusal(write(stub, timeout_s=PAUSE_MS / 4000))

    assert impatient.code == grpc.StatusCode.DEADLINE_EXCEEDED
    assert await write(stub) in (pb2.EVENT_STATUS_APPLIED, pb2.EVENT_STATUS_DUPLICATE)
    assert time.monotonic() - began > PAUSE_MS / 2000


async def test_a_full_server(own_cluster, stub):
    """RESOURCE_EXHAUSTED for who needs it; users of other servers are written to."""
    other = next(
        name for name in map(str, range(100)) if key_slot(user_keys(name).state) * NUM_MASTERS // 16_384 != MASTER
    )
    with own_cluster.server(MASTER) as server, configured(server, maxmemory="1", maxmemory_policy="noeviction"):
        failed = await refusal(write(stub))
        elsewhere = await stub.WriteEvents(make.write(make.event(user_id=other)))
    await until_well(stub)

    assert (failed.code, failed.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "REDIS_OUT_OF_MEMORY")
    assert elsewhere.results[0].status == pb2.EVENT_STATUS_APPLIED


async def test_scripts_that_were_flushed(own_cluster, stub):
    """Nobody notices."""
    for number in range(NUM_MASTERS):
        with own_cluster.server(number) as server:
            server.script_flush()

    assert await write(stub) == pb2.EVENT_STATUS_APPLIED


async def test_a_slot_that_moved(own_cluster, stub):
    """MOVED is followed: nobody notices."""
    target = (MASTER + 1) % NUM_MASTERS
    _give(own_cluster, target)
    try:
        assert await write(stub) == pb2.EVENT_STATUS_APPLIED
        assert len((await stub.BatchGetUsers(make.users(USER))).users[0].history) == 1
    finally:
        with own_cluster.server(target) as server:
            server.flushall()
        _give(own_cluster, MASTER)


async def test_a_slot_that_nobody_serves(own_cluster, stub):
    """CLUSTERDOWN is UNAVAILABLE, and well by itself once the slot is served again."""
    for number in range(NUM_MASTERS):
        with own_cluster.server(number) as server:
            server.execute_command("CLUSTER", "DELSLOTS", SLOT)
    failed = await refusal(write(stub))
    with own_cluster.server(MASTER) as server:
        server.execute_command("CLUSTER", "ADDSLOTS", SLOT)
    await until_well(stub)

    assert (failed.code, failed.reason) == (grpc.StatusCode.UNAVAILABLE, "REDIS_CLUSTER_DOWN")


async def test_a_cluster_that_is_taken_for_one_server(own_cluster):
    """The reason says which setting is wrong."""
    wrong = own_cluster.ports[(MASTER + 1) % NUM_MASTERS]
    link = RedisLink(f"redis://127.0.0.1:{wrong}", timeout_s=5, max_connections=2)
    await link.probe()
    try:
        with pytest.raises(Unavailable, match="FEATURE_REDIS_CLUSTER") as raised:
            await link.command("GET", user_keys(USER).state)
    finally:
        await link.close()

    assert raised.value.reason == "REDIS_IS_A_CLUSTER"


def _give(own_cluster: Cluster, target: int) -> None:
    """Makes a master the owner of the slot, which holds nothing."""
    with own_cluster.server(target) as server:
        owner = server.execute_command("CLUSTER", "MYID")
    for number in (target, *(number for number in range(NUM_MASTERS) if number != target)):
        with redis.Redis(port=own_cluster.ports[number]) as server:
            server.execute_command("CLUSTER", "SETSLOT", SLOT, "NODE", owner)
