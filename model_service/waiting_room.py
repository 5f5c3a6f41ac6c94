"""Decides when waiting requests become one batch. Knows time, rows and priorities; knows no tensor, movie or RPC.

A request that finds the device idle leaves at once, unless it is about users who are not near and the loop is busy. One
that finds the device busy, or a batch just gone, joins the batch that forms; how long that one is held is told by
`Pacing`.
"""

import math
from collections import deque
from dataclasses import dataclass
from enum import IntEnum, StrEnum
from typing import Generic, TypeVar

from model_service.company import Company
from model_service.pacing import Pacing

Payload = TypeVar("Payload")

_MIN_RETRY_S = 0.02
_MAX_RETRY_S = 5.0
_DURATION_MEMORY = 0.8
"""Weight of the past in the running mean of batch durations."""


class QueueFullError(Exception):
    """More rows wait than the queue may hold.

    Attributes:
        retry_after_s: When the rows that wait now should be gone.
    """

    def __init__(self, retry_after_s: float) -> None:
        super().__init__("the queue is full")
        self.retry_after_s = retry_after_s


class Priority(IntEnum):
    """Who goes first."""

    INTERACTIVE = 0
    BULK = 1


class Release(StrEnum):
    """Why a batch left."""

    IDLE = "idle"
    """Its first request found the device idle."""
    FULL = "full"
    HELD = "held"
    """Its first request found the device or the loop busy, or a batch just gone; it was held as `Pacing` says."""


class Drop(StrEnum):
    """Why a request left without a batch."""

    REFUSED = "refused"
    """The queue was full."""
    EXPIRED = "expired"
    CANCELLED = "cancelled"
    """The caller went away."""


@dataclass(frozen=True, slots=True)
class BatchingKnobs:
    """What the policy may be told; `settings` documents the defaults.

    Attributes:
        max_batch_rows: Rows of a batch at most, unless a single request has more.
        max_waiting_rows: Rows that may wait, for each priority separately.
        gap_s: How long a batch is held because of the device, counted from its first request; see `Pacing`.
        max_in_flight: Batches under way at once: with two, one reads features while the other is on the device.
        bulk_patience_s: A bulk request that has waited so long goes before interactive ones that came after it, but has
            every second batch at most.
        max_bulk_rows: Rows of a batch of bulk requests at most: an interactive one waits for no more than these.
    """

    max_batch_rows: int
    max_waiting_rows: int
    gap_s: float
    max_in_flight: int
    bulk_patience_s: float
    max_bulk_rows: int


@dataclass(slots=True, eq=False)
class Ticket(Generic[Payload]):
    """A request that waits; `arrived` and `deadline` are points in monotonic time, in seconds.

    `num_far` of its users are not near: they cost the less the more of them a batch has.
    """

    payload: Payload
    rows: int
    priority: Priority
    arrived: float
    deadline: float
    num_far: int = 0


class WaitingRoom(Generic[Payload]):
    """The policy: what waits, what leaves as a batch, and when. Time is always an argument.

    Attributes:
        released: Batches that left so far, by why.
        dropped: Requests that left without a batch so far, by why.
    """

    def __init__(self, knobs: BatchingKnobs, company: Company) -> None:
        """Stores what the policy was told, and who tells whether the service is too busy to hurry."""
        self._knobs = knobs
        self._queues: dict[Priority, deque[Ticket[Payload]]] = {priority: deque() for priority in Priority}
        self._rows = dict.fromkeys(Priority, 0)
        self._num_far_waiting = 0
        self._pacing = Pacing(knobs.gap_s, company)
        self._held_until = 0.0
        self._in_flight = 0
        self._mean_duration_s = 0.0
        self._release = Release.IDLE
        self._last_was_bulk = False
        self.released = dict.fromkeys(Release, 0)
        self.dropped = dict.fromkeys(Drop, 0)

    @property
    def in_flight(self) -> int:
        """Batches that were taken and not finished."""
        return self._in_flight

    @property
    def waiting_rows(self) -> int:
        """Rows that wait."""
        return sum(self._rows.values())

    def rows_waiting(self, priority: Priority) -> int:
        """Returns how many rows of one priority wait."""
        return self._rows[priority]

    def admit(self, ticket: Ticket[Payload]) -> list[Ticket[Payload]]:
        """Lets a request wait.

        Returns:
            Requests whose deadline had passed and which were dropped to make room.

        Raises:
            QueueFullError: Too much waits already.
        """
        dropped: list[Ticket[Payload]] = []
        if not self._has_room(ticket):
            dropped = self._drop_expired(ticket.arrived)
            if not self._has_room(ticket):
                self.dropped[Drop.REFUSED] += 1
                raise QueueFullError(self._retry_after_s())
        num_far = _num_far(ticket)
        if self.waiting_rows == 0:
            self._held_until = self._pacing.hold_until(ticket.arrived, ticket.deadline, num_far, self._in_flight)
            self._release = Release.HELD if self._in_flight or self._held_until > ticket.arrived else Release.IDLE
        else:
            self._held_until = self._pacing.hold_on_until(
                self._held_until, ticket.arrived, ticket.deadline, num_far, self._num_far_waiting + num_far
            )
        self._queues[ticket.priority].append(ticket)
        self._rows[ticket.priority] += ticket.rows
        self._num_far_waiting += num_far
        return dropped

    def withdraw(self, ticket: Ticket[Payload]) -> None:
        """Forgets a request whose caller has gone; does nothing if it has left already."""
        self._drop(ticket, Drop.CANCELLED)

    def take(self, now: float) -> tuple[list[Ticket[Payload]], list[Ticket[Payload]]]:
        """Takes the next batch, if one should leave now.

        Returns:
            The batch, empty if none leaves now, and the requests whose deadline had passed, which were dropped.
        """
        if self._in_flight >= self._knobs.max_in_flight:
            return [], []
        dropped = self._drop_expired(now)
        full = self.waiting_rows >= self._knobs.max_batch_rows
        if self.waiting_rows == 0 or (now < self._held_until and not full):
            return [], dropped
        batch = self._compose(now)
        self._in_flight += 1
        self._pacing.note_left(now, len(batch))
        self._held_until = now
        self.released[Release.FULL if full else self._release] += 1
        self._release = Release.HELD
        return batch, dropped

    def wake_at(self) -> float | None:
        """Returns when `take` may next give a batch although nothing arrives or finishes; None if never."""
        if self.waiting_rows == 0 or self._in_flight >= self._knobs.max_in_flight:
            return None
        return self._held_until

    def finish(self, duration_s: float) -> None:
        """Notes that a batch is done."""
        self._in_flight -= 1
        past = self._mean_duration_s or duration_s
        self._mean_duration_s = _DURATION_MEMORY * past + (1 - _DURATION_MEMORY) * duration_s

    def _has_room(self, ticket: Ticket[Payload]) -> bool:
        waiting = self._rows[ticket.priority]
        # A request larger than the whole queue must be answerable while nothing waits.
        return waiting == 0 or waiting + ticket.rows <= self._knobs.max_waiting_rows

    def _retry_after_s(self) -> float:
        batches = self.waiting_rows / self._knobs.max_batch_rows + 1
        return min(_MAX_RETRY_S, max(_MIN_RETRY_S, batches * self._mean_duration_s))

    def _drop_expired(self, now: float) -> list[Ticket[Payload]]:
        dropped = [ticket for queue in self._queues.values() for ticket in queue if ticket.deadline <= now]
        for ticket in dropped:
            self._drop(ticket, Drop.EXPIRED)
        return dropped

    def _drop(self, ticket: Ticket[Payload], why: Drop) -> None:
        queue = self._queues[ticket.priority]
        if ticket in queue:
            queue.remove(ticket)
            self._rows[ticket.priority] -= ticket.rows
            self._num_far_waiting -= _num_far(ticket)
            self.dropped[why] += 1

    def _compose(self, now: float) -> list[Ticket[Payload]]:
        priority = self._next_priority(now)
        self._last_was_bulk = priority is Priority.BULK
        most = min(self._knobs.max_batch_rows, self._knobs.max_bulk_rows if self._last_was_bulk else math.inf)
        queue = self._queues[priority]
        batch: list[Ticket[Payload]] = []
        rows = 0
        while queue and (not batch or rows + queue[0].rows <= most):
            ticket = queue.popleft()
            self._rows[ticket.priority] -= ticket.rows
            self._num_far_waiting -= _num_far(ticket)
            rows += ticket.rows
            batch.append(ticket)
        return batch

    def _next_priority(self, now: float) -> Priority:
        # Never both in one batch: the callers of few rows would wait for the many.
        interactive, bulk = self._queues[Priority.INTERACTIVE], self._queues[Priority.BULK]
        if not bulk or not interactive:
            return Priority.INTERACTIVE if interactive else Priority.BULK
        # A job that asks for more than there is has no patience left all the time.
        has_turn = bulk[0].arrived + self._knobs.bulk_patience_s <= now and not self._last_was_bulk
        return Priority.BULK if has_turn and bulk[0].arrived < interactive[0].arrived else Priority.INTERACTIVE


def _num_far(ticket: Ticket[Payload]) -> int:
    # Bulk requests have company enough in themselves, and share no batch with others.
    return ticket.num_far if ticket.priority is Priority.INTERACTIVE else 0
