"""One connection serves all reads: answers in order, failures told to whoever waits, silence ended."""

import asyncio
from collections.abc import AsyncIterator

import hiredis
import pytest

from feature_service.packed_commands import packed
from feature_service.read_line import ReadLine

STANDSTILL = ("BLPOP", "nobody-pushes", "0")
"""A command that Redis never answers, on a connection that it answers nothing else on meanwhile."""

pytestmark = pytest.mark.usefixtures("one_server")


@pytest.fixture
async def line(link) -> AsyncIterator[ReadLine]:
    async with asyncio.timeout(60):
        made = await open_line(link, timeout_s=30)
        yield made
        made.close()


async def open_line(link, timeout_s: float) -> ReadLine:
    [connection] = await link.new_connections()
    line = ReadLine(connection, timeout_s)
    await line.open()
    return line


async def ask(line: ReadLine, *command: bytes | str) -> object:
    """Returns the answer, or the exception that came instead."""
    answer: asyncio.Future[object] = asyncio.get_running_loop().create_future()
    line.ask(packed(command), answer.set_result)
    return await answer


async def test_answers_come_in_the_order_of_the_commands(line, raw_redis):
    """A thousand of different lengths are under way together, some of them longer than what a socket gives at once."""
    raw_redis.mset({f"k{i}": f"{i} " * (40_000 if i % 100 == 0 else i) for i in range(1000)})

    answers = await asyncio.gather(*(ask(line, "MGET", f"k{i}", "none") for i in range(1000)))

    expected = [f"{i} " * (40_000 if i % 100 == 0 else i) for i in range(1000)]
    assert answers == [[text.encode(), None] for text in expected]


async def test_what_redis_refuses_is_told_to_who_asked_for_it(line):
    """The others have their answers, and the line stays."""
    refused, answered = await asyncio.gather(ask(line, "NOCOMMAND"), ask(line, "PING"))

    assert isinstance(refused, hiredis.ReplyError)
    assert answered == b"PONG"
    assert line.is_open


async def test_who_waits_on_a_lost_line_is_told(line, raw_redis):
    """Everybody, and nobody may ask any more."""
    client_id = await ask(line, "CLIENT", "ID")
    waiting = [asyncio.create_task(ask(line, *command)) for command in (STANDSTILL, ("GET", "k"), ("GET", "k"))]
    await asyncio.sleep(0)
    raw_redis.client_kill_filter(_id=client_id)

    told = await asyncio.gather(*waiting)

    assert [type(error) for error in told] == [ConnectionError] * 3
    assert not line.is_open


async def test_a_line_that_is_silent_for_too_long_is_left(link):
    """Who waits learns that it was time that ran out; answers in time before do not matter."""
    line = await open_line(link, timeout_s=0.2)
    assert await ask(line, "PING") == b"PONG"

    told = await asyncio.gather(ask(line, *STANDSTILL), ask(line, "GET", "k"))

    assert [type(error) for error in told] == [TimeoutError] * 2
    assert not line.is_open
