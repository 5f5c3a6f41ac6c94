"""Who writes is never answered from before his own write, by two replicas over a real store that keep users near.

The small sister of `benchmarks/read_your_write.py`, with the same writers and the same judges, in one process.
"""

import random
from contextlib import AsyncExitStack

import pytest
from marquee.client.channel import open_channel
from marquee.v1 import feature_service_pb2 as fpb
from marquee.v1 import feature_service_pb2_grpc, movie_pb2

from benchmarks.read_your_write import SERVICE, Replicas, UntoldFeed
from benchmarks.write_and_ask import Plan, write_and_ask
from deploy.local.processes import free_address
from service_runtime.health import Health
from service_runtime.server import Server, Service

USERS = [f"user-{number}" for number in range(40)]
MOVIES = 80


@pytest.fixture
async def exits():
    """Ends what a test started."""
    async with AsyncExitStack() as stack:
        yield stack


@pytest.fixture
async def store(feature_stub):
    """A store with movies, whose users are strangers."""
    movies = [
        fpb.MovieUpsert(movie=movie_pb2.Movie(movie_id=f"m{number}", genres=["Drama"])) for number in range(MOVIES)
    ]
    await feature_stub.BatchUpsertMovies(fpb.BatchUpsertMoviesRequest(movies=movies))
    return feature_stub


@pytest.fixture
def replicas_on(start, train):
    """Starts two services that read from a feature service; gives the stubs and where they tell their metrics."""
    train("v1")

    async def run(stack, address):
        metrics = [free_address(), free_address()]
        stubs = [
            await stack.enter_async_context(
                start(feature_service=address, near_cache_bytes=1 << 22, metrics_listen=listen, catalogue_poll_s=3600.0)
            )
            for listen in metrics
        ]
        return Replicas(stubs, metrics)

    return run


async def test_no_list_is_older_than_the_write_before_it(exits, replicas_on, store, feature_address):
    """A thousand writes, each followed by lists that hold none of what was written, most of them from near."""
    replicas = await replicas_on(exits, feature_address)

    found = await write_and_ask(store, replicas.stubs, USERS, Plan(100, together=1), random.Random(1))
    found += await write_and_ask(store, replicas.stubs, USERS, Plan(900, together=5), random.Random(2))

    lookups = replicas.lookups()
    assert found["pairs"] == 1000
    assert (found["stale_lists"], found["refused"]) == (0, 0)
    assert lookups["hit"] / lookups.total() >= 0.5


async def test_without_changes_and_versions_there_are_stale_lists(exits, replicas_on, store, feature_address):
    """The control: the judges can see what they look for; versions alone keep it away."""
    channel = await exits.enter_async_context(open_channel(feature_address))
    untold = UntoldFeed(feature_service_pb2_grpc.FeatureServiceStub(channel))
    server = Server([Service(SERVICE, untold)], Health([], []), listen="127.0.0.1:0", drain_timeout_s=0.5)
    address = (await exits.enter_async_context(server)).address
    replicas = await replicas_on(exits, address)

    with_versions = await write_and_ask(store, replicas.stubs, USERS, Plan(80, together=5), random.Random(1))
    without = await write_and_ask(
        store, replicas.stubs, USERS, Plan(80, together=5, with_versions=False), random.Random(1)
    )

    assert with_versions["stale_lists"] == 0
    assert without["stale_lists"] > 0
