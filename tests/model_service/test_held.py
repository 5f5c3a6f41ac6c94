"""Questions that are held are answered together, each to who asked it; what answers them is made up and remembers."""

import asyncio
from collections.abc import Sequence

import pytest

from model_service.company import MOST_TOGETHER, Company
from model_service.held import Held

GAP_S = 0.01


class Doubler:
    """Doubles numbers, and refuses 13.

    Attributes:
        asked: What it was asked, call by call.
    """

    def __init__(self) -> None:
        self.asked: list[list[int]] = []

    def __call__(self, numbers: Sequence[int]) -> list[int]:
        """Answers all, or none if 13 is among them."""
        self.asked.append(list(numbers))
        if 13 in numbers:
            raise ValueError("13 is not doubled")
        return [2 * number for number in numbers]


@pytest.fixture
def doubler() -> Doubler:
    return Doubler()


@pytest.fixture
async def held(doubler: Doubler) -> Held[int, int]:
    loop = asyncio.get_running_loop()
    return Held(Company(GAP_S, lambda: 0.0), loop.time, doubler)


async def test_who_waits_at_a_time_is_answered_at_once_and_in_order(held: Held[int, int], doubler: Doubler) -> None:
    """One call for three, and each has his own."""
    answers = await asyncio.gather(*map(held.answered, (1, 2, 3)))

    assert answers == [2, 4, 6]
    assert doubler.asked == [[1, 2, 3]]
    assert held.num_held == 3


async def test_the_next_ones_are_waited_for_anew(held: Held[int, int], doubler: Doubler) -> None:
    """After an answer a timer runs again for who comes then."""
    await held.answered(1)

    answers = await asyncio.gather(*map(held.answered, (2, 3)))

    assert answers == [4, 6]
    assert doubler.asked == [[1], [2, 3]]


async def test_whoever_comes_within_the_gap_joins(held: Held[int, int], doubler: Doubler) -> None:
    """The gap begins again with him; nobody waits for more than four gaps."""
    first = asyncio.create_task(held.answered(1))
    await asyncio.sleep(GAP_S / 2)
    second = asyncio.create_task(held.answered(2))

    assert [await first, await second] == [2, 4]
    assert doubler.asked == [[1, 2]]


async def test_nobody_waits_for_ever_while_others_keep_coming(held: Held[int, int], doubler: Doubler) -> None:
    """Four gaps, and the first one is answered, though one came in each of them."""
    asked = []
    for number in range(12):
        asked.append(asyncio.create_task(held.answered(number)))
        await asyncio.sleep(GAP_S / 2)

    assert asked[0].done()
    assert await asyncio.gather(*asked) == [2 * number for number in range(12)]
    assert len(doubler.asked) > 1


async def test_who_is_cancelled_is_not_asked_about(held: Held[int, int], doubler: Doubler) -> None:
    """The others wait on; if all are gone, nobody is asked."""
    tasks = [asyncio.create_task(held.answered(number)) for number in (1, 2, 3)]
    await asyncio.sleep(0)

    tasks[1].cancel()

    assert [await tasks[0], await tasks[2]] == [2, 6]
    assert doubler.asked == [[1, 3]]
    alone = asyncio.create_task(held.answered(4))
    await asyncio.sleep(0)
    alone.cancel()
    await asyncio.sleep(2 * GAP_S)
    assert doubler.asked == [[1, 3]]


async def test_one_question_that_fails_is_the_only_one(held: Held[int, int]) -> None:
    """Whoever asked beside it is answered."""
    outcomes = await asyncio.gather(*map(held.answered, (1, 13, 3)), return_exceptions=True)

    assert [outcomes[0], outcomes[2]] == [2, 6]
    assert isinstance(outcomes[1], ValueError)


async def test_more_than_others_may_wait_for_are_answered_in_several_turns(
    held: Held[int, int], doubler: Doubler
) -> None:
    """Between them the loop does what else there is."""
    numbers = range(100, 100 + 2 * MOST_TOGETHER + 5)

    answers = await asyncio.gather(*map(held.answered, numbers))

    assert answers == [2 * number for number in numbers]
    assert [len(each) for each in doubler.asked] == [MOST_TOGETHER, MOST_TOGETHER, 5]
