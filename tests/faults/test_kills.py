"""Servers are killed at random points under load: what was acknowledged is there afterwards, once.

Each test runs small with all the others, and whole with `make test-faults`, which prints what it counted.
"""

import asyncio
import random
import shutil
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import pytest
from marquee.client.channel import open_channel
from marquee.v1 import feature_service_pb2_grpc

from tests.faults.audit import Audit, audit
from tests.faults.conftest import Tell
from tests.faults.load import NUM_MOVIES, Load, make_calls
from tests.faults.victims import AofSizes, KilledMaster, KilledRedis, KilledService, Victim, slow_disk
from tests.feature_server import until_ready
from tests.feature_service import messages as make
from tests.redis_cluster import Cluster, running_cluster

pytestmark = pytest.mark.timeout(600)
FAULTS = pytest.mark.faults
COMPILER = shutil.which("gcc")


def small_and_whole(small: tuple[int, int], whole: tuple[int, int]) -> pytest.MarkDecorator:
    """Runs a test with few events and kills, and marks the run with many as one of `make test-faults`."""
    return pytest.mark.parametrize(
        ("num_events", "num_kills"), [pytest.param(*small, id="small"), pytest.param(*whole, id="whole", marks=FAULTS)]
    )


# What is written after the last kill shows that the survivors are well.
_KILLED_WITHIN = (0.05, 0.9)


@contextmanager
def running_service(folder: Path, **settings: str) -> Iterator[KilledService]:
    """A feature_service that is ended."""
    service = KilledService(folder, **settings)
    yield service
    service.stop()


@contextmanager
def redis_and_service(
    folder: Path, fsync: str, library: Path | None = None
) -> Iterator[tuple[KilledRedis, KilledService]]:
    """A feature_service and the Redis that it uses, which is ended also if a test fails."""
    server = KilledRedis(folder, fsync, library)
    try:
        with running_service(folder, FEATURE_REDIS_URL=server.url) as service:
            yield server, service
    finally:
        server.stop()


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    """A cluster of the test's own: servers that its threads started again end with them."""
    with running_cluster() as cluster:
        yield cluster


@asynccontextmanager
async def stub_of(address: str) -> AsyncIterator["feature_service_pb2_grpc.FeatureServiceAsyncStub"]:
    """A client of a service that is ready."""
    async with open_channel(address) as channel:
        await until_ready(channel)
        yield feature_service_pb2_grpc.FeatureServiceStub(channel)


async def write_under_kills(load: Load, victim: Victim, num_events: int, num_kills: int, rng: random.Random) -> None:
    """Writes everything while a server is killed at random points."""
    points = sorted(int(num_events * rng.uniform(*_KILLED_WITHIN)) for _ in range(num_kills))
    async with asyncio.TaskGroup() as group:
        group.create_task(load.run())
        for point in points:
            await load.until(point)
            await asyncio.sleep(rng.uniform(0, 0.05))
            await asyncio.to_thread(victim.kill)
            await asyncio.to_thread(victim.revive)


async def run(address: str, victim: Victim, num_events: int, num_kills: int, seed: int) -> tuple[Load, Audit, float]:
    """Writes under kills into an empty store and looks at what is there afterwards."""
    rng = random.Random(seed)
    calls = make_calls(rng, num_events)
    async with stub_of(address) as stub:
        await stub.BatchUpsertMovies(make.movies(NUM_MOVIES))
    load = Load(address, calls, rng)
    began = time.monotonic()
    await write_under_kills(load, victim, num_events, num_kills, rng)
    took_s = time.monotonic() - began
    async with stub_of(address) as stub:
        return load, await audit(stub, load.acknowledged), took_s


def row_of(killed: str, num_kills: int, load: Load, found: Audit, took_s: float) -> dict[str, object]:
    """Returns a row of the table."""
    return {
        "killed": killed,
        "kills": num_kills,
        "events acknowledged": f"{len(load.acknowledged):,}",
        "calls repeated": sum(load.failures.values()),
        "events lost": found.num_lost,
        "counted twice": found.num_twice,
        "users half-written": found.num_torn,
        "users other than the model": found.num_wrong,
        "seconds": f"{took_s:.0f}",
    }


@small_and_whole((1500, 1), (50_000, 6))
async def test_a_killed_service_loses_nothing(tmp_path, tell: Tell, num_events, num_kills):
    """Callers repeat what was not acknowledged; whether it had been written makes no difference."""
    with redis_and_service(tmp_path, "everysec") as (_, service):
        load, found, took_s = await run(service.address, service, num_events, num_kills, seed=1)

    tell(row_of("feature_service", num_kills, load, found, took_s))
    assert len(load.acknowledged) == num_events
    assert found == Audit(0, 0, 0, 0)


@pytest.mark.parametrize(
    ("fsync", "num_events", "num_kills"),
    [
        pytest.param("everysec", 1500, 1, id="everysec-small"),
        pytest.param("everysec", 50_000, 6, id="everysec-whole", marks=FAULTS),
        pytest.param("always", 50_000, 6, id="always-whole", marks=FAULTS),
    ],
)
async def test_a_killed_redis_loses_nothing(tmp_path, tell: Tell, fsync, num_events, num_kills):
    """What it acknowledged lies in its append-only file, as far as the operating system is concerned."""
    with redis_and_service(tmp_path, fsync) as (server, service):
        load, found, took_s = await run(service.address, server, num_events, num_kills, seed=2)

    tell(row_of(f"Redis, appendfsync {fsync}", num_kills, load, found, took_s))
    assert len(load.acknowledged) == num_events
    assert found == Audit(0, 0, 0, 0)


@FAULTS
@pytest.mark.skipif(COMPILER is None, reason="makes a disk slow by a library that a C compiler has to make")
# With always each command waits for a sync or two: at 1.5 s none would end within its time on a busy machine.
@pytest.mark.parametrize(("fsync", "num_events", "sync_s"), [("everysec", 5000, 1.5), ("always", 1000, 0.3)])
async def test_a_redis_killed_while_its_disk_is_slow(tmp_path, tell: Tell, fsync, num_events, sync_s):
    """With everysec Redis acknowledges what it has not handed to the operating system; with always it waits."""
    library = slow_disk(tmp_path, str(COMPILER), sync_s)
    with redis_and_service(tmp_path, fsync, library) as (server, service):
        victim = KilledWhileSyncing(server) if fsync == "everysec" else server
        load, found, took_s = await run(service.address, victim, num_events, 1, seed=6)
        again = await write_again(service.address, load.acknowledged)

    tell(row_of(f"Redis, appendfsync {fsync}, on a slow disk", 1, load, found, took_s))
    assert (found.num_lost > 0) == (fsync == "everysec")
    assert (found.num_twice, found.num_torn) == (0, 0)
    assert again == Audit(0, 0, 0, 0)


class KilledWhileSyncing:
    """Kills a Redis when it is most forgetful."""

    def __init__(self, server: KilledRedis) -> None:
        self._server = server

    def kill(self) -> None:
        self._server.kill_while_syncing()

    def revive(self) -> None:
        self._server.revive()


@FAULTS
async def test_a_failover_loses_nothing_that_a_replica_acknowledged(tmp_path, tell: Tell, cluster):
    """With FEATURE_WRITE_ACK=replica; tests/feature_service/test_cluster.py does it small."""
    num_events, num_kills = 50_000, 5
    settings = {"FEATURE_REDIS_URL": cluster.url, "FEATURE_REDIS_CLUSTER": "true", "FEATURE_WRITE_ACK": "replica"}
    with running_service(tmp_path, **settings) as service:
        victim = KilledMaster(cluster, random.Random(3))
        load, found, took_s = await run(service.address, victim, num_events, num_kills, seed=3)

    tell(row_of("a cluster's master, ack replica", num_kills, load, found, took_s))
    assert len(load.acknowledged) == num_events
    assert found == Audit(0, 0, 0, 0)


@FAULTS
async def test_a_failover_may_lose_what_no_replica_acknowledged(tmp_path, tell: Tell, cluster):
    """With FEATURE_WRITE_ACK=local: the loss is printed; nothing is half-written, and writing again restores it."""
    num_events, num_kills = 50_000, 5
    settings = {"FEATURE_REDIS_URL": cluster.url, "FEATURE_REDIS_CLUSTER": "true", "FEATURE_WRITE_ACK": "local"}
    with running_service(tmp_path, **settings) as service:
        victim = KilledMaster(cluster, random.Random(4))
        load, found, took_s = await run(service.address, victim, num_events, num_kills, seed=4)
        again = await write_again(service.address, load.acknowledged)

    tell(row_of("a cluster's master, ack local", num_kills, load, found, took_s))
    assert (found.num_twice, found.num_torn) == (0, 0)
    assert again == Audit(0, 0, 0, 0)


@small_and_whole((1500, 1), (50_000, 5))
async def test_a_power_loss_takes_the_tail_only(tmp_path, tell: Tell, num_events, num_kills):
    """What was synced a second ago is there; users and log are those of one moment; writing again restores the rest."""
    with redis_and_service(tmp_path, "everysec") as (server, service):
        victim = PowerLoss(server, random.Random(5))
        watching = asyncio.create_task(victim.sizes.watch())
        load, found, took_s = await run(service.address, victim, num_events, num_kills, seed=5)
        watching.cancel()
        again = await write_again(service.address, load.acknowledged)

    tell(row_of(f"power, losing {victim.lost_bytes:,} bytes", num_kills, load, found, took_s))
    assert victim.lost_bytes > 0
    assert (found.num_twice, found.num_torn) == (0, 0)
    assert again == Audit(0, 0, 0, 0)


class PowerLoss:
    """Kills a Redis and takes some of what it appended in its last second."""

    def __init__(self, server: KilledRedis, rng: random.Random) -> None:
        self._server = server
        self._rng = rng
        self.sizes = AofSizes(server)
        self.lost_bytes = 0

    def kill(self) -> None:
        a_second_ago = self.sizes.at(time.monotonic() - 1)
        self._server.kill()
        size = self._server.aof().stat().st_size
        left = self._rng.randint(min(a_second_ago, size), size)
        self._server.lose_tail(left)
        self.lost_bytes += size - left

    def revive(self) -> None:
        self._server.revive()
        self._server.write_file_anew()


async def write_again(address: str, acknowledged: Sequence) -> Audit:
    """Writes what was acknowledged once more, as a queue does that is read again from further back."""
    calls = [acknowledged[first : first + 500] for first in range(0, len(acknowledged), 500)]
    load = Load(address, calls, random.Random(0))
    await load.run()
    async with stub_of(address) as stub:
        return await audit(stub, load.acknowledged)
