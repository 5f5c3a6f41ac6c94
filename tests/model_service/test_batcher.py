"""Requests that arrive together become batches, and each caller gets his own answer."""

import asyncio
import time

import pytest

from model_service.batcher import Batcher, ClosedError, ExpiredError
from model_service.company import Company
from model_service.thread_load import not_idle_s
from model_service.waiting_room import BatchingKnobs, Drop, Priority, QueueFullError

KNOBS = BatchingKnobs(
    max_batch_rows=100, max_waiting_rows=200, gap_s=0.001, max_in_flight=1, bulk_patience_s=0.2, max_bulk_rows=100
)
NOBODY_WAITED_FOR = Company(0.0, not_idle_s)


class Doubler:
    """Work that doubles numbers once its gate is open, and keeps what it was asked."""

    def __init__(self):
        self.batches = []
        self.gate = asyncio.Event()
        self.gate.set()

    async def __call__(self, members):
        self.batches.append([member.payload for member in members])
        await self.gate.wait()
        for member in members:
            member.answer(ValueError("odd") if member.payload % 2 else member.payload * 2)


def ask(batcher, number, timeout_s=10.0, rows=1):
    return asyncio.create_task(batcher.submit(number, rows, Priority.INTERACTIVE, time.monotonic() + timeout_s))


async def settle():
    for _ in range(3):
        await asyncio.sleep(0)


async def test_requests_that_find_the_device_busy_share_a_batch():
    """The first leaves alone; those that come meanwhile leave together."""
    work = Doubler()
    work.gate.clear()
    async with Batcher(KNOBS, work, NOBODY_WAITED_FOR) as batcher:
        first = ask(batcher, 2)
        await settle()
        others = [ask(batcher, number) for number in (4, 6, 8)]
        await settle()
        work.gate.set()

        answers = await asyncio.gather(first, *others)

    assert answers == [4, 8, 12, 16]
    assert work.batches == [[2], [4, 6, 8]]


async def test_one_bad_request_does_not_fail_its_neighbours():
    """An error goes to the caller whom it concerns."""
    work = Doubler()
    work.gate.clear()
    async with Batcher(KNOBS, work, NOBODY_WAITED_FOR) as batcher:
        tasks = [ask(batcher, number) for number in (2, 3, 4)]
        await settle()
        work.gate.set()

        outcomes = await asyncio.gather(*tasks, return_exceptions=True)

    assert [outcomes[0], outcomes[2]] == [4, 8]
    assert isinstance(outcomes[1], ValueError)


async def test_cancelled_and_expired_requests_cost_no_work():
    """Who leaves while he waits is never worked for."""
    work = Doubler()
    work.gate.clear()
    async with Batcher(KNOBS, work, NOBODY_WAITED_FOR) as batcher:
        first = ask(batcher, 2)
        await settle()
        cancelled, expired, patient = ask(batcher, 4), ask(batcher, 6, timeout_s=0.005), ask(batcher, 8)
        await settle()
        cancelled.cancel()
        await asyncio.sleep(0.01)
        work.gate.set()

        outcomes = await asyncio.gather(first, cancelled, expired, patient, return_exceptions=True)

    assert work.batches == [[2], [8]]
    assert isinstance(outcomes[1], asyncio.CancelledError)
    assert isinstance(outcomes[2], ExpiredError)
    assert batcher.room.dropped == {Drop.REFUSED: 0, Drop.EXPIRED: 1, Drop.CANCELLED: 1}


async def test_who_comes_after_his_deadline_is_counted_and_not_worked_for():
    """Under load calls wait before they are taken, some of them too long."""
    work = Doubler()
    async with Batcher(KNOBS, work, NOBODY_WAITED_FOR) as batcher:
        with pytest.raises(ExpiredError):
            await ask(batcher, 2, timeout_s=0.0)

    assert work.batches == []
    assert batcher.room.dropped[Drop.EXPIRED] == 1


async def test_one_caller_who_leaves_does_not_cancel_the_batch_of_the_others():
    """The work goes on for those who wait."""
    work = Doubler()
    work.gate.clear()
    async with Batcher(KNOBS, work, NOBODY_WAITED_FOR) as batcher:
        await asyncio.wait([ask(batcher, 2)], timeout=0)
        leaver, stayer = ask(batcher, 4), ask(batcher, 6)
        await settle()
        work.gate.set()
        while len(work.batches) < 2:
            work.gate.clear()
            await asyncio.sleep(0.001)
        leaver.cancel()
        work.gate.set()

        answer = await stayer

    assert answer == 12


async def test_who_is_left_without_an_answer_is_told_why():
    """His deadline passed during the work, or the work forgot him."""

    async def work(members):
        await asyncio.sleep(0.05)

    async with Batcher(KNOBS, work, NOBODY_WAITED_FOR) as batcher:
        with pytest.raises(ExpiredError):
            await ask(batcher, 1, timeout_s=0.02)
        with pytest.raises(RuntimeError, match="without an answer"):
            await ask(batcher, 1)


async def test_a_request_whose_deadline_has_passed_is_refused_at_the_door():
    """It never enters the queue."""
    work = Doubler()
    async with Batcher(KNOBS, work, NOBODY_WAITED_FOR) as batcher:
        with pytest.raises(ExpiredError):
            await batcher.submit(2, 1, Priority.INTERACTIVE, time.monotonic())

    assert work.batches == []


async def test_a_full_queue_is_refused():
    """The caller hears of it at once instead of waiting."""
    work = Doubler()
    work.gate.clear()
    async with Batcher(KNOBS, work, NOBODY_WAITED_FOR) as batcher:
        tasks = [ask(batcher, 2), ask(batcher, 4, rows=200)]
        await settle()

        with pytest.raises(QueueFullError):
            await batcher.submit(6, 1, Priority.INTERACTIVE, time.monotonic() + 1)
        work.gate.set()
        await asyncio.gather(*tasks)


async def test_work_that_fails_fails_each_of_its_callers_and_nothing_else():
    """The next batch is served as if nothing had happened."""

    async def work(members):
        for member in members:
            if member.payload == 0:
                raise OSError("the device is on fire")
            member.answer(member.payload)

    async with Batcher(KNOBS, work, NOBODY_WAITED_FOR) as batcher:
        with pytest.raises(OSError, match="on fire"):
            await ask(batcher, 0)

        assert await ask(batcher, 7) == 7


async def test_leaving_waits_for_what_was_admitted_and_admits_no_more():
    """A shutdown loses no answer."""
    work = Doubler()
    batcher = Batcher(KNOBS, work, NOBODY_WAITED_FOR)
    async with batcher:
        tasks = [ask(batcher, 2), ask(batcher, 4)]
        await settle()

    assert [task.result() for task in tasks] == [4, 8]
    with pytest.raises(ClosedError):
        await batcher.submit(2, 1, Priority.INTERACTIVE, time.monotonic() + 1)
