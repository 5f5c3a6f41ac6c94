"""When questions leave together: a pure policy, tested with an event loop and no network."""

import asyncio

import pytest
from marquee.client.coalescing import Coalescer, TooManyWaitingError

SOON_S = 60.0


class Calls:
    """Notes each call, and answers it when it is let go: every question with itself in capitals."""

    def __init__(self):
        self.made = []
        self._gates = []

    async def send(self, kind, questions):
        self.made.append((kind, [question.asked for question in questions]))
        gate = asyncio.Event()
        self._gates.append(gate)
        await gate.wait()
        for question in questions:
            if not question.answer.done():
                question.answer.set_result(question.asked.upper())

    def let_go(self, number):
        self._gates[number].set()


@pytest.fixture
def calls():
    return Calls()


def coalescer(calls, **knobs):
    clock = asyncio.get_running_loop().time
    return Coalescer(calls.send, **{"max_in_flight": 1, "max_together": 4, "max_waiting": 100, "clock": clock, **knobs})


def ask(coalescer, *questions, kind="k", within_s=SOON_S):
    deadline = asyncio.get_running_loop().time() + within_s
    return [asyncio.create_task(coalescer.ask(kind, question, deadline)) for question in questions]


async def turn():
    for _ in range(5):
        await asyncio.sleep(0)


async def test_what_is_asked_in_one_turn_leaves_together(calls):
    """A lone question waits for nobody; several of one turn share a call."""
    asked = coalescer(calls)

    answers = ask(asked, "a", "b", "c")
    await turn()
    calls.let_go(0)

    assert await asyncio.gather(*answers) == ["A", "B", "C"]
    assert calls.made == [("k", ["a", "b", "c"])]


async def test_questions_gather_while_a_call_is_under_way(calls):
    """They leave as soon as it returns, and no earlier."""
    asked = coalescer(calls)
    answers = ask(asked, "a")
    await turn()
    for question in "bcd":
        answers += ask(asked, question)
        await turn()
    before = list(calls.made)
    calls.let_go(0)
    await turn()
    calls.let_go(1)

    assert await asyncio.gather(*answers) == ["A", "B", "C", "D"]
    assert before == [("k", ["a"])]
    assert calls.made == [("k", ["a"]), ("k", ["b", "c", "d"])]


async def test_more_calls_may_be_under_way(calls):
    """As many as replicas can work on, each with as many questions as a call may have."""
    asked = coalescer(calls, max_in_flight=2, max_together=2)

    answers = ask(asked, "a", "b", "c", "d", "e")
    await turn()
    under_way = list(calls.made)
    for number in (0, 1):
        calls.let_go(number)
    await turn()
    calls.let_go(2)

    assert await asyncio.gather(*answers) == ["A", "B", "C", "D", "E"]
    assert under_way == [("k", ["a", "b"]), ("k", ["c", "d"])]
    assert calls.made[2] == ("k", ["e"])


async def test_questions_of_different_kinds_share_no_call_and_take_turns(calls):
    """A kind of which much is asked does not keep the others waiting."""
    asked = coalescer(calls, max_together=1)
    answers = ask(asked, "a", "b", kind="much") + ask(asked, "c", kind="little")
    for number in range(3):
        await turn()
        calls.let_go(number)

    await asyncio.gather(*answers)
    assert [kind for kind, _ in calls.made] == ["much", "little", "much"]


async def test_who_no_longer_waits_is_not_asked_for(calls):
    """A cancelled question and one whose time is over take no place in a call."""
    asked = coalescer(calls)
    ask(asked, "a")
    await turn()
    [cancelled] = ask(asked, "b")
    [late] = ask(asked, "c", within_s=0.01)
    [patient] = ask(asked, "d")
    await turn()
    cancelled.cancel()
    with pytest.raises(TimeoutError):
        await late
    calls.let_go(0)
    await turn()
    calls.let_go(1)

    assert await patient == "D"
    assert calls.made == [("k", ["a"]), ("k", ["d"])]


async def test_a_call_that_fails_fails_those_who_shared_it(calls):
    """And the next ones leave all the same."""

    async def fail(kind, questions):
        raise ConnectionError("gone")

    asked = coalescer(calls)
    asked._send = fail
    with pytest.raises(ConnectionError):
        await asyncio.gather(*ask(asked, "a", "b"))
    asked._send = calls.send
    answers = ask(asked, "c")
    await turn()
    calls.let_go(0)

    assert await asyncio.gather(*answers) == ["C"]


async def test_more_than_may_wait_are_refused(calls):
    """Memory is bounded, whatever a caller does."""
    asked = coalescer(calls, max_waiting=3)
    ask(asked, "a")
    await turn()
    answers = ask(asked, "b", "c", "d", "e")
    await turn()
    refused = answers[-1]

    with pytest.raises(TooManyWaitingError):
        await refused
    await asked.close()


async def test_closing_cancels_who_waits(calls):
    """Nobody waits for ever."""
    asked = coalescer(calls)
    answers = ask(asked, "a")
    await turn()
    answers += ask(asked, "b")
    await turn()

    await asked.close()

    results = await asyncio.gather(*answers, return_exceptions=True)
    assert all(isinstance(result, asyncio.CancelledError) for result in results)
