"""Gathers what is asked at the same time into batches. Knows time and counts; knows no message and no RPC.

The policy is work-conserving, as the service's own: while fewer calls than allowed are under way, what has been asked
leaves at the end of the event loop's turn; while they are, what is asked gathers, and leaves together as soon as one
returns. So a lone question waits for nothing, and many questions travel in few calls.
"""

import asyncio
import time
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

AskedT = TypeVar("AskedT")
AnswerT = TypeVar("AnswerT")


class TooManyWaitingError(Exception):
    """As many questions wait as may."""


@dataclass(slots=True, eq=False)
class Question(Generic[AskedT, AnswerT]):
    """What one caller asked.

    Attributes:
        asked: What is to be answered.
        deadline: When he stops waiting, in monotonic seconds.
        answer: Where he waits.
    """

    asked: AskedT
    deadline: float
    answer: "asyncio.Future[AnswerT]" = field(repr=False)

    def is_open(self, now: float) -> bool:
        """Tells whether anybody waits for the answer still."""
        return not self.answer.done() and self.deadline > now


Send = Callable[[Hashable, Sequence[Question[AskedT, AnswerT]]], Awaitable[None]]
"""Asks some questions of one kind in one call, and sets the answer of each, or its exception."""


class Coalescer(Generic[AskedT, AnswerT]):
    """Holds questions until they may leave; questions of one kind may share a call."""

    def __init__(
        self,
        send: "Send[AskedT, AnswerT]",
        *,
        max_in_flight: int,
        max_together: int,
        max_waiting: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Stores the policy.

        Args:
            send: Makes a call.
            max_in_flight: Calls under way at a time.
            max_together: Questions in one call.
            max_waiting: Questions that wait at a time; more are refused.
            clock: Monotonic seconds.
        """
        self._send = send
        self._max_in_flight = max_in_flight
        self._max_together = max_together
        self._max_waiting = max_waiting
        self._clock = clock
        self._waiting: OrderedDict[Hashable, deque[Question[AskedT, AnswerT]]] = OrderedDict()
        self._num_waiting = 0
        self._calls: set[asyncio.Task[None]] = set()
        self._leaves_soon = False

    async def ask(self, kind: Hashable, asked: AskedT, deadline: float) -> AnswerT:
        """Asks one question, and returns its answer.

        Args:
            kind: Questions of the same kind may share a call.
            asked: What is to be answered.
            deadline: When nobody waits any more, in monotonic seconds.

        Raises:
            TooManyWaitingError: As many wait as may.
            TimeoutError: The deadline came before the answer.
            Exception: Whatever the call ended with.
        """
        if self._num_waiting >= self._max_waiting:
            raise TooManyWaitingError
        loop = asyncio.get_running_loop()
        question: Question[AskedT, AnswerT] = Question(asked, deadline, loop.create_future())
        self._waiting.setdefault(kind, deque()).append(question)
        self._num_waiting += 1
        if not self._leaves_soon:
            self._leaves_soon = True
            loop.call_soon(self._leave)
        async with asyncio.timeout(deadline - self._clock()):
            return await question.answer

    async def close(self) -> None:
        """Cancels who waits and the calls under way."""
        for questions in self._waiting.values():
            for question in questions:
                question.answer.cancel()
        self._waiting.clear()
        self._num_waiting = 0
        for call in self._calls:
            call.cancel()
        await asyncio.gather(*self._calls, return_exceptions=True)

    def _leave(self) -> None:
        self._leaves_soon = False
        while len(self._calls) < self._max_in_flight and self._waiting:
            kind, questions = next(iter(self._waiting.items()))
            together = self._take(questions)
            if questions:
                self._waiting.move_to_end(kind)
            else:
                del self._waiting[kind]
            if together:
                call = asyncio.ensure_future(self._call(kind, together))
                self._calls.add(call)
                call.add_done_callback(self._returned)

    def _take(self, questions: deque[Question[AskedT, AnswerT]]) -> list[Question[AskedT, AnswerT]]:
        now = self._clock()
        together: list[Question[AskedT, AnswerT]] = []
        while questions and len(together) < self._max_together:
            question = questions.popleft()
            self._num_waiting -= 1
            if question.is_open(now):
                together.append(question)
        return together

    async def _call(self, kind: Hashable, together: Sequence[Question[AskedT, AnswerT]]) -> None:
        try:
            await self._send(kind, together)
        except asyncio.CancelledError:
            for question in together:
                question.answer.cancel()
            raise
        except Exception as error:  # noqa: BLE001 whatever a call ended with is for those who asked
            for question in together:
                if not question.answer.done():
                    question.answer.set_exception(error)

    def _returned(self, call: "asyncio.Task[None]") -> None:
        self._calls.discard(call)
        self._leave()
