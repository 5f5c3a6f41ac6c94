"""Subscribers hear of every change, or that they missed some; never nothing."""

import asyncio
from contextlib import aclosing

import pytest

from feature_service.change_ring import MAX_CHANGES_AT_ONCE, MAX_SUBSCRIBERS, ChangeRing, Changes
from service_runtime.errors import ResourceExhausted


@pytest.fixture
def ring() -> ChangeRing:
    """Holds ten changes and is live."""
    ring = ChangeRing(10)
    ring.reset(live=True)
    return ring


async def told(following) -> Changes:
    async with asyncio.timeout(1):
        return await anext(following)


async def test_a_new_subscriber_begins_with_a_reset(ring):
    """Nobody knows what he holds; what comes later is told."""
    async with aclosing(ring.follow("")) as following:
        first = await told(following)
        ring.add(["a", "b", "a"], catalogue=True)
        second = await told(following)

    assert first.reset
    assert first.live
    assert (second.user_ids, second.catalogue, second.reset) == (["a", "b"], True, False)


async def test_a_subscriber_resumes_where_he_was(ring):
    """He hears what he missed, once, without a reset."""
    async with aclosing(ring.follow("")) as following:
        position = (await told(following)).position
    ring.add(["a"])
    async with aclosing(ring.follow(position)) as following:
        changes = await told(following)
    ring.add(["b"])
    async with aclosing(ring.follow(changes.position)) as following:
        later = await told(following)

    assert (changes.user_ids, changes.reset) == (["a"], False)
    assert (later.user_ids, later.reset) == (["b"], False)


@pytest.mark.parametrize("position", ["", "nonsense", "0123456789abcdef.3", "x.y.z"])
async def test_an_unknown_position_begins_with_a_reset(ring, position):
    """Also that of another replica."""
    ring.add(["a", "b", "c", "d"])

    async with aclosing(ring.follow(position)) as following:
        assert (await told(following)).reset


async def test_a_position_beyond_the_ring_begins_with_a_reset(ring):
    """What was told meanwhile is forgotten already."""
    async with aclosing(ring.follow("")) as following:
        position = (await told(following)).position
    ring.add([str(i) for i in range(11)])

    async with aclosing(ring.follow(position)) as following:
        assert (await told(following)).reset


async def test_a_slow_subscriber_is_cut_off(ring):
    """He is told so, and nothing was kept for him."""
    async with aclosing(ring.follow("")) as following:
        await told(following)
        ring.add([str(i) for i in range(11)])
        with pytest.raises(ResourceExhausted) as cut_off:
            await told(following)

    assert cut_off.value.reason == "SUBSCRIBER_TOO_SLOW"
    assert ring.num_subscribers == 0


async def test_as_many_changes_as_the_ring_holds_are_told(ring):
    """The limit is not one too early."""
    async with aclosing(ring.follow("")) as following:
        await told(following)
        ring.add([str(i) for i in range(10)])

        assert (await told(following)).user_ids == [str(i) for i in range(10)]


async def test_many_changes_come_in_parts():
    """A message stays small."""
    ring = ChangeRing(10_000)
    ring.reset(live=True)
    async with aclosing(ring.follow("")) as following:
        await told(following)
        ring.add([str(i) for i in range(2 * MAX_CHANGES_AT_ONCE + 5)])
        parts = [await told(following) for _ in range(3)]

    assert [len(part.user_ids) for part in parts] == [MAX_CHANGES_AT_ONCE, MAX_CHANGES_AT_ONCE, 5]


async def test_silence_is_told_while_the_ring_is_live(ring):
    """A subscriber can tell a quiet store from a lost feed; a ring that is not live stays silent."""
    async with aclosing(ring.follow("")) as following:
        position = (await told(following)).position
        waiting = asyncio.ensure_future(anext(following))
        await asyncio.sleep(0)
        ring.add([])
        quiet = await waiting
        ring.reset(live=False)
        lost = await told(following)
        waiting = asyncio.ensure_future(anext(following))
        await asyncio.sleep(0)
        ring.add([])
        await asyncio.sleep(0.01)
        silent = not waiting.done()
        ring.reset(live=True)
        back = await waiting

    assert quiet == Changes(position)
    assert (lost.reset, lost.live) == (True, False)
    assert silent
    assert (back.reset, back.live) == (True, True)


async def test_the_number_of_subscribers_is_limited(ring):
    """One more than that is refused, and a place that becomes free can be taken."""
    following = [ring.follow("") for _ in range(MAX_SUBSCRIBERS)]
    for each in following:
        await told(each)
    with pytest.raises(ResourceExhausted, match="follow already"):
        await told(ring.follow(""))
    await following.pop().aclose()

    async with aclosing(ring.follow("")) as one_more:
        assert (await told(one_more)).reset
    for each in following:
        await each.aclose()
    assert ring.num_subscribers == 0
