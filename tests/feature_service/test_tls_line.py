"""A line to Redis through TLS ends without a word, whoever ends it."""

import asyncio

import pytest

from feature_service.packed_commands import packed
from feature_service.read_line import ReadLine
from feature_service.redis_link import RedisLink
from tests.redis_server import ON_CLUSTER

pytestmark = [
    pytest.mark.timeout(120),
    pytest.mark.skipif(ON_CLUSTER, reason="starts a server of its own"),
]


@pytest.mark.parametrize("who", ["we", "redis"])
async def test_a_line_in_tls_ends_without_a_fault(guarded, who):
    """Closed by either side, and then once more, as a link does that hangs up on what it has lost."""
    faults = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: faults.append(context))
    link = RedisLink(guarded.url, timeout_s=5, max_connections=2, security=guarded.guard.security("feature_service"))
    [connection] = await link.new_connections()
    line = ReadLine(connection, timeout_s=5)
    await line.open()

    if who == "redis":
        lost = asyncio.get_running_loop().create_future()
        line.ask(packed(("QUIT",)), lambda _: None)
        line.ask(packed(("PING",)), lost.set_result)
        assert isinstance(await asyncio.wait_for(lost, 5), ConnectionError)
    line.close()
    line.close()

    await asyncio.sleep(0.1)
    await link.close()
    assert faults == []
