"""What the tests of feature_service share: the store's parts on a real Redis."""

from collections.abc import AsyncIterator

import pytest

from feature_service.redis_link import RedisLink
from feature_service.store import StoreMarks


@pytest.fixture
async def link(redis_url: str) -> AsyncIterator[RedisLink]:
    """A connection to an empty Redis."""
    link = RedisLink(redis_url, timeout_s=5, max_connections=4)
    await link.probe()
    yield link
    await link.close()


@pytest.fixture
def marks(link: RedisLink) -> StoreMarks:
    return StoreMarks(link)
