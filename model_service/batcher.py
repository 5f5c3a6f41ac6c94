"""Runs the batches that the waiting room lets go. Knows tasks and futures; knows no tensor, movie or RPC."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from contextvars import Context, copy_context
from dataclasses import dataclass, field
from types import TracebackType
from typing import Generic, Self, TypeVar

from model_service.company import Company
from model_service.waiting_room import BatchingKnobs, Drop, Priority, Ticket, WaitingRoom

Payload = TypeVar("Payload")
Answer = TypeVar("Answer")

_DRAIN_POLL_S = 0.001


class ExpiredError(Exception):
    """The deadline passed before there was an answer."""


class ClosedError(Exception):
    """The batcher takes no more requests."""


@dataclass(slots=True, eq=False)
class Member(Generic[Payload, Answer]):
    """One request of a batch.

    Attributes:
        payload: What was submitted.
        deadline: When its caller stops waiting, in monotonic seconds.
        rows: How much of the batch it takes up.
        priority: Who went first.
        arrived: When it was submitted, in monotonic seconds.
        context: The context of who submitted it: the batch runs in another.
    """

    payload: Payload
    deadline: float
    _future: asyncio.Future[Answer]
    rows: int = 1
    priority: Priority = Priority.INTERACTIVE
    arrived: float = 0.0
    context: Context = field(default_factory=copy_context)

    def is_live(self, now: float) -> bool:
        """Tells whether somebody still waits for the answer."""
        return not self._future.done() and self.deadline > now

    def answer(self, outcome: Answer | Exception) -> None:
        """Gives the caller an answer or an error; does nothing if he has gone."""
        if self._future.done():
            return
        if isinstance(outcome, Exception):
            self._future.set_exception(outcome)
        else:
            self._future.set_result(outcome)


BatchWork = Callable[[Sequence[Member[Payload, Answer]]], Awaitable[None]]
"""Answers each member of a batch that is still live."""


class Batcher(Generic[Payload, Answer]):
    """Runs batches as the policy says: the one scheduler of a device. `async with` waits for what is under way.

    Attributes:
        room: What waits.
    """

    def __init__(
        self,
        knobs: BatchingKnobs,
        work: BatchWork[Payload, Answer],
        company: Company,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Stores the policy and who tells it whether the loop is busy, what answers, and monotonic seconds."""
        self.room: WaitingRoom[Member[Payload, Answer]] = WaitingRoom(knobs, company)
        self._work = work
        self._clock = clock
        self._running: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closed = True
        while self._running or self.room.waiting_rows:
            await asyncio.wait(self._running) if self._running else await asyncio.sleep(_DRAIN_POLL_S)
        if self._timer is not None:
            self._timer.cancel()

    async def submit(
        self, payload: Payload, rows: int, priority: Priority, deadline: float, num_far: int = 0
    ) -> Answer:
        """Waits for a batch with this request in it.

        Args:
            payload: What the work is done on.
            rows: How much of a batch it takes up, at least 1.
            priority: Who goes first.
            deadline: When nobody waits any more, in monotonic seconds.
            num_far: How many of its users are not near: for them it may be held for longer while the loop is busy.

        Raises:
            QueueFullError: Too much waits already.
            ExpiredError: The deadline passed before there was an answer.
            ClosedError: The batcher is being shut down.
        """
        if self._closed:
            raise ClosedError("the batcher takes no more requests")
        now = self._clock()
        if deadline <= now:
            self.room.dropped[Drop.EXPIRED] += 1
            raise ExpiredError("the deadline has passed")
        member = Member(payload, deadline, asyncio.get_running_loop().create_future(), rows, priority, now)
        ticket = Ticket(member, rows, priority, now, deadline, num_far)
        _expire(self.room.admit(ticket))
        self._pump()
        try:
            answer: Answer = await member._future
            return answer
        except asyncio.CancelledError:
            self.room.withdraw(ticket)
            raise

    def _pump(self) -> None:
        while True:
            batch, dropped = self.room.take(self._clock())
            _expire(dropped)
            if not batch:
                break
            task = asyncio.create_task(self._run([ticket.payload for ticket in batch]))
            self._running.add(task)
            task.add_done_callback(self._running.discard)
        if self._timer is not None:
            self._timer.cancel()
        wake_at = self.room.wake_at()
        delay_s = None if wake_at is None else max(0.0, wake_at - self._clock())
        self._timer = None if delay_s is None else asyncio.get_running_loop().call_later(delay_s, self._pump)

    async def _run(self, members: Sequence[Member[Payload, Answer]]) -> None:
        began = self._clock()
        try:
            await self._work(members)
        except Exception as error:  # noqa: BLE001 each caller gets it and reports it
            for member in members:
                member.answer(error)
        finally:
            now = self._clock()
            for member in members:
                if member.deadline <= now:
                    member.answer(ExpiredError("the deadline passed while the request was worked on"))
                else:
                    member.answer(RuntimeError("the batch ended without an answer for this request"))
            self.room.finish(self._clock() - began)
            self._pump()


def _expire(tickets: Sequence[Ticket[Member[Payload, Answer]]]) -> None:
    for ticket in tickets:
        ticket.payload.answer(ExpiredError("the deadline passed while the request waited"))
