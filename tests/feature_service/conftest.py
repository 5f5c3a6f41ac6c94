"""What the tests of feature_service share: the store's parts on a real Redis."""

from collections.abc import AsyncIterator, Iterator

import pytest

from feature_service.cluster_link import ClusterLink
from feature_service.redis_link import RedisLink
from feature_service.store import StoreMarks
from tests.redis_server import ON_CLUSTER, RunningRedis, guarded_redis


@pytest.fixture(scope="module")
def guarded() -> Iterator[RunningRedis]:
    """One server that wants TLS and knows its users."""
    with guarded_redis() as running:
        yield running


@pytest.fixture
async def link(running_redis: RunningRedis) -> AsyncIterator[RedisLink]:
    """A connection to an empty Redis."""
    # Tests put things in and look into them as none of the users of a deployment may.
    security = None if running_redis.guard is None else running_redis.guard.security("test")
    kind = ClusterLink if ON_CLUSTER else RedisLink
    link = kind(running_redis.url, timeout_s=5, max_connections=4, security=security)
    await link.probe()
    yield link
    await link.close()


@pytest.fixture
def marks(link: RedisLink) -> StoreMarks:
    return StoreMarks(link)
