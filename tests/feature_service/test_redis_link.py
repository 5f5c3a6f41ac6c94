"""Reads travel together, failures become UNAVAILABLE with a time to come back."""

import asyncio

import pytest

from feature_service.redis_link import RedisLink
from service_runtime.errors import Unavailable

pytestmark = pytest.mark.usefixtures("one_server")


def num_calls(raw_redis, command: str) -> int:
    stats = raw_redis.info("commandstats").get(f"cmdstat_{command}", {"calls": 0})
    return int(stats["calls"])


async def test_reads_of_one_turn_are_one_command(link, raw_redis):
    """A hundred reads that are asked for together cost Redis one MGET, and each gets its own values."""
    raw_redis.mset({f"k{i}": f"v{i}" for i in range(100)})
    before = num_calls(raw_redis, "mget")

    answers = await asyncio.gather(*(link.read([b"k%d" % i, b"none"]) for i in range(100)))

    assert answers == [[b"v%d" % i, None] for i in range(100)]
    assert num_calls(raw_redis, "mget") == before + 1


async def test_one_callers_cancel_is_not_anothers(link, raw_redis):
    """A read that is given up leaves its neighbours alone."""
    raw_redis.set("k", "v")
    given_up = asyncio.create_task(link.read([b"k"]))
    kept = asyncio.create_task(link.read([b"k"]))
    await asyncio.sleep(0)

    given_up.cancel()

    assert await kept == [b"v"]
    with pytest.raises(asyncio.CancelledError):
        await given_up


async def test_an_absent_redis_is_unavailable(tmp_path):
    """Every reader of a turn learns that Redis is not there and when to come back; later ones at once."""
    link = RedisLink(f"unix://{tmp_path}/none.sock", timeout_s=1, max_connections=2)
    with pytest.raises(Unavailable):
        await link.probe()

    failures = await asyncio.gather(*(link.read([b"k"]) for _ in range(3)), return_exceptions=True)

    assert [type(failure) for failure in failures] == [Unavailable] * 3
    assert failures[0].reason == "REDIS_UNAVAILABLE"
    assert failures[0].retry_after_s > 0
    assert link.failed.is_set()
    await link.close()


async def test_a_connection_that_redis_closed_costs_no_request(link, raw_redis):
    """After Redis dropped all connections the next command succeeds on a new one."""
    await link.command("SET", "k", "v")
    drop_others(raw_redis)

    assert await link.command("GET", "k") == b"v"


async def test_a_read_outlives_its_connection(link, raw_redis):
    """Redis drops all connections as answers are on their way, and again: whoever waits is answered by another one."""
    raw_redis.set("k", "v")
    for _ in range(5):
        assert await link.read([b"k"]) == [b"v"]
        reads = [asyncio.create_task(link.read([b"k"])) for _ in range(3)]
        await asyncio.sleep(0)
        drop_others(raw_redis)

        assert await asyncio.gather(*reads) == [[b"v"]] * 3


def drop_others(raw_redis) -> None:
    own = raw_redis.client_id()
    for client in raw_redis.client_list():
        if int(client["id"]) != own:
            raw_redis.client_kill_filter(_id=client["id"])
