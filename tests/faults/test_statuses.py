"""Each way in which one Redis fails has a status and a reason, and the service is well again once Redis is."""

import asyncio
import random
import threading
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import grpc
import pytest
import redis
from marquee.client.channel import open_channel
from marquee.client.errors import CallError, read_error
from marquee.v1 import feature_service_pb2 as pb2
from marquee.v1 import feature_service_pb2_grpc
from pydantic import SecretStr

from feature_service.__main__ import serving
from feature_service.embedded_redis import find_server, server_version
from feature_service.redis_link import RedisLink
from feature_service.settings import FeatureSettings
from service_runtime.errors import Unavailable
from tests.faults.refusing import NO_RETRIES, configured, refusal
from tests.faults.victims import KilledRedis
from tests.feature_server import until_ready
from tests.feature_service import messages as make
from tests.slow_proxy import SlowProxy

UNAVAILABLE, EXHAUSTED = grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED
TIMEOUT_S = 1.0


@pytest.fixture(scope="module")
def server(tmp_path_factory) -> Iterator[KilledRedis]:
    """A Redis of this file's own, for its settings change."""
    server = KilledRedis(tmp_path_factory.mktemp("redis"), "everysec")
    yield server
    server.stop()


@pytest.fixture
def client(server) -> Iterator[redis.Redis]:
    """A connection past the proxy; Redis is empty."""
    with redis.Redis(unix_socket_path=str(server.socket)) as client:
        client.flushall()
        yield client


@pytest.fixture
async def proxy(tmp_path, server, client) -> AsyncIterator[SlowProxy]:
    """What the service takes for its Redis."""
    async with SlowProxy(tmp_path, server.socket) as proxy:
        yield proxy


@pytest.fixture
async def stub(proxy) -> AsyncIterator[feature_service_pb2_grpc.FeatureServiceStub]:
    """A ready service behind the proxy, with 300 movies and a user."""
    settings = FeatureSettings(
        redis_url=SecretStr(proxy.url), redis_timeout_s=TIMEOUT_S, listen="127.0.0.1:0", drain_timeout_s=1.0
    )
    async with serving(settings) as serving_, open_channel(serving_.address, options=NO_RETRIES) as channel:
        await until_ready(channel)
        stub = feature_service_pb2_grpc.FeatureServiceStub(channel)
        await stub.BatchUpsertMovies(make.movies(300))
        await stub.WriteEvents(make.write(make.event(user_id="known")))
        yield stub


async def write(stub, timeout_s: float = 10) -> pb2.EventResult:
    return (await stub.WriteEvents(make.write(make.event(movie_id="m1")), timeout=timeout_s)).results[0]


async def until_well(stub, event: pb2.Event | None = None) -> None:
    """Waits until writes are taken again."""
    async with asyncio.timeout(30):
        while True:
            try:
                await stub.WriteEvents(make.write(event or make.event(movie_id="m1")))
            except grpc.aio.AioRpcError:
                await asyncio.sleep(0.05)
            else:
                return


async def test_a_redis_that_is_away(stub, proxy):
    """UNAVAILABLE with the time after which to come back, and well by itself once Redis is back."""
    await proxy.hang_up()
    failed = await refusal(write(stub))
    async with proxy:
        await until_well(stub)

    assert (failed.code, failed.reason) == (UNAVAILABLE, "REDIS_UNAVAILABLE")
    assert failed.retry_after_s is not None


async def test_a_connection_that_breaks_is_not_noticed(stub, proxy):
    """The write that finds it broken is tried again on a new one."""
    await proxy.hang_up()
    async with proxy:
        assert (await write(stub)).status == pb2.EVENT_STATUS_APPLIED


async def test_a_redis_that_is_slow(stub, proxy):
    """UNAVAILABLE after FEATURE_REDIS_TIMEOUT_S, all tries together; a caller who waits less sees his deadline."""
    proxy.delay_s = 60
    began = time.monotonic()
    impatient = await refusal(write(stub, timeout_s=TIMEOUT_S / 4))
    failed = await refusal(write(stub))
    took_s = time.monotonic() - began
    proxy.delay_s = 0
    await until_well(stub)

    assert impatient.code == grpc.StatusCode.DEADLINE_EXCEEDED
    assert (failed.code, failed.reason) == (UNAVAILABLE, "REDIS_TIMEOUT")
    assert took_s < 5 * TIMEOUT_S


async def test_nothing_is_done_after_the_deadline(stub, proxy):
    """A handler ends with its caller: what he did not wait for is not written later."""
    proxy.delay_s = 0.8 * TIMEOUT_S  # of the look at the catalogue, which comes before the write
    given_up = await refusal(write(stub, timeout_s=0.2 * TIMEOUT_S))
    await asyncio.sleep(TIMEOUT_S)
    proxy.delay_s = 0

    assert given_up.code == grpc.StatusCode.DEADLINE_EXCEEDED
    await until_well(stub, make.event(user_id="known"))
    assert len((await stub.BatchGetUsers(make.users("u"))).users[0].history) == 0


async def test_a_read_only_redis(stub, client):
    """Writes are UNAVAILABLE, reads are answered."""
    client.replicaof("127.0.0.1", "1")
    try:
        failed = await refusal(write(stub))
        read = await stub.BatchGetUsers(make.users("known"))
    finally:
        client.replicaof("NO", "ONE")
    await until_well(stub)

    assert (failed.code, failed.reason) == (UNAVAILABLE, "REDIS_READ_ONLY")
    assert len(read.users[0].history) == 1


async def test_a_failover_in_mid_call(stub, proxy, client, tmp_path):
    """The address leads to a new master: a write that meets the old one is tried again there, and succeeds."""
    promoted = KilledRedis(tmp_path, "everysec")
    try:
        with redis.Redis(unix_socket_path=str(promoted.socket)) as other:
            for key in client.scan_iter():
                other.restore(key, 0, client.dump(key))
            proxy.server = promoted.socket
            client.replicaof("127.0.0.1", "1")
            written = await write(stub)
            stored = other.keys("*:u:u")
    finally:
        client.replicaof("NO", "ONE")
        proxy.server = Path(str(client.connection_pool.connection_kwargs["path"]))
        promoted.stop()

    assert written.status == pb2.EVENT_STATUS_APPLIED
    assert len(stored) == 1


async def test_a_full_redis(stub, client):
    """Writes are RESOURCE_EXHAUSTED, which clients do not repeat at once; reads are answered, and users go."""
    with configured(client, maxmemory="1", maxmemory_policy="noeviction"):
        failed = await refusal(write(stub))
        read = await stub.BatchGetUsers(make.users("known"))
        deleted = await stub.DeleteUser(pb2.DeleteUserRequest(user_id="known"))
    await until_well(stub)

    assert (failed.code, failed.reason) == (EXHAUSTED, "REDIS_OUT_OF_MEMORY")
    assert failed.retry_after_s is not None
    assert len(read.users[0].history) == 1
    assert deleted.deleted
    assert len((await stub.BatchGetUsers(make.users("known"))).users[0].history) == 0


async def test_a_redis_that_lacks_replicas(stub, client):
    """One that is told to want some takes no writes: UNAVAILABLE."""
    with configured(client, min_replicas_to_write="1"):
        failed = await refusal(write(stub))
    await until_well(stub)

    assert (failed.code, failed.reason) == (UNAVAILABLE, "REDIS_TOO_FEW_REPLICAS")


async def test_a_redis_that_runs_somebody_elses_script(stub, client):
    """UNAVAILABLE while it does."""
    with configured(client, lua_time_limit="10"):
        running = threading.Thread(target=_run_for_ever, args=(client.connection_pool.connection_kwargs["path"],))
        running.start()
        try:
            failed = await _until_busy(stub)
        finally:
            client.script_kill()
            running.join()
    await until_well(stub)

    assert failed.code == UNAVAILABLE


async def _until_busy(stub) -> CallError:
    async with asyncio.timeout(30):
        while True:
            try:
                await write(stub)
            except grpc.aio.AioRpcError as error:
                found = read_error(error)
                if found.reason == "REDIS_BUSY":
                    return found


def _run_for_ever(path: str) -> None:
    with redis.Redis(unix_socket_path=path) as other, pytest.raises(redis.exceptions.ResponseError):
        other.eval("while true do end", 0)


async def test_scripts_that_were_flushed(stub, client):
    """Nobody notices: scripts travel with each call."""
    client.script_flush()

    assert (await write(stub)).status == pb2.EVENT_STATUS_APPLIED


@pytest.mark.skipif(server_version(find_server()) < (7, 0), reason="Redis 6.2 cannot be made to load slowly")
async def test_a_redis_that_is_loading(tmp_path):
    """It says so, also to later calls, which are not sent at all."""
    server = KilledRedis(tmp_path, "everysec")
    with redis.Redis(unix_socket_path=str(server.socket)) as client:
        for number in range(100):
            client.set(f"k{number}", random.Random(number).randbytes(1100))
        client.save()
    link = RedisLink(server.url, timeout_s=5, max_connections=2)
    server.load_slowly()
    try:
        with pytest.raises(Unavailable) as first:
            await link.probe()
        with pytest.raises(Unavailable) as later:
            await link.read([b"k1"])
    finally:
        await link.close()
        server.stop()

    assert first.value.reason == later.value.reason == "REDIS_LOADING"
