"""Holds questions until they have company, and has them answered together. Knows futures and timers; no question."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from model_service.company import MOST_TOGETHER, Company

Question = TypeVar("Question")
Answer = TypeVar("Answer")


class Held(Generic[Question, Answer]):
    """The questions of one kind that wait at a time.

    Attributes:
        num_held: Questions so far that were held.
    """

    def __init__(
        self,
        company: Company,
        clock: Callable[[], float],
        answer_all: Callable[[Sequence[Question]], Sequence[Answer]],
    ) -> None:
        """Stores who waits for whom, what tells monotonic seconds, and what answers some questions in their order."""
        self._company = company
        self._clock = clock
        self._answer_all = answer_all
        self._waiting: list[tuple[Question, asyncio.Future[Answer]]] = []
        self._first_came = 0.0
        self._num_seen = 0
        self.num_held = 0

    def is_worth_it(self, deadline: float | None) -> bool:
        """Tells whether a question is to be held whose caller stops waiting then, in monotonic seconds; None: never."""
        now = self._clock()
        seeks = bool(self._waiting) or self._company.is_sought(now)
        return seeks and self._company.may_wait(now, deadline)

    async def answered(self, question: Question) -> Answer:
        """Waits for the answer, and raises what was raised instead of it."""
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Answer] = loop.create_future()
        self._waiting.append((question, answer))
        self.num_held += 1
        if len(self._waiting) == 1:
            self._first_came, self._num_seen = self._clock(), 1
            loop.call_later(self._company.gap_s, self._look)
        return await answer

    def _look(self) -> None:
        """Answers those who wait, or waits for one more gap."""
        num_waiting = len(self._waiting)
        if self._company.is_enough(num_waiting, num_waiting - self._num_seen, self._clock() - self._first_came):
            self._answer()
        else:
            self._num_seen = num_waiting
            asyncio.get_running_loop().call_later(self._company.gap_s, self._look)

    def _answer(self) -> None:
        """Answers as many as others may wait for in one turn of the loop, and the rest in the next turns."""
        waiting, self._waiting = self._waiting[:MOST_TOGETHER], self._waiting[MOST_TOGETHER:]
        if self._waiting:
            asyncio.get_running_loop().call_soon(self._answer)
        wanted = [each for each in waiting if not each[1].done()]
        answers = self._answers([question for question, _ in wanted])
        for (_, future), answer in zip(wanted, answers, strict=True):
            if isinstance(answer, Exception):
                future.set_exception(answer)
            else:
                future.set_result(answer)

    def _answers(self, questions: Sequence[Question]) -> Sequence[Answer | Exception]:
        """Answers all; where that fails, each by itself, so that nobody pays for another one's question."""
        if not questions:
            return []
        try:
            return self._answer_all(questions)
        except Exception as error:  # noqa: BLE001  each caller gets his own and reports it
            if len(questions) == 1:
                return [error]
            return [answer for question in questions for answer in self._answers([question])]
