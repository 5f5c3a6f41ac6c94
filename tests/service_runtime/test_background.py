"""Tasks that run beside calls end when they are told to, whatever they wait on forgets."""

import asyncio

import pytest

from service_runtime.background import end, require_going_on


async def forgetful_wait() -> None:
    """Waits as asyncio.wait_for does whose result comes while it is cancelled: nobody hears of the cancellation."""
    try:
        await asyncio.sleep(60)
    except asyncio.CancelledError:
        return


async def test_a_task_ends_that_forgot_to_be_cancelled() -> None:
    """It is told again."""

    async def work() -> None:
        await forgetful_wait()
        await asyncio.sleep(60)

    task = asyncio.create_task(work())
    await asyncio.sleep(0)

    await asyncio.wait_for(end(task), 20)

    assert task.cancelled()


async def test_what_a_task_failed_with_is_raised() -> None:
    """An error of something that ran unseen is not swallowed."""

    async def fail() -> None:
        raise ValueError("broken")

    task = asyncio.create_task(fail())
    await asyncio.sleep(0)

    with pytest.raises(ValueError, match="broken"):
        await end(task)


async def test_one_of_a_group_may_ask_whether_it_was_cancelled() -> None:
    """A group cancels each of its tasks once."""
    rounds = 0

    async def listen() -> None:
        nonlocal rounds
        while True:
            rounds += 1
            await forgetful_wait()
            require_going_on()

    async def follow() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(listen())

    task = asyncio.create_task(follow())
    await asyncio.sleep(0.01)

    await asyncio.wait_for(end(task), 20)

    assert rounds == 1
