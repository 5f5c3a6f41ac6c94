"""Numbers what changed and tells those who follow. Knows user ids and positions; knows no Redis and no message.

Changes stand in a ring of fixed size that all subscribers share, so a subscriber costs a position and nothing grows
with the slowest of them: who falls behind the ring's tail is cut off. While nobody can say what changes, the ring is
not live, and what is lost in the meantime is covered by a reset.
"""

import asyncio
import secrets
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass

from service_runtime.errors import ResourceExhausted

MAX_SUBSCRIBERS = 64
"""Each follows in a task of its own; a deployment has as many replicas of model_service as subscribers."""

MAX_CHANGES_AT_ONCE = 1000
"""Ids of 128 bytes: 130 kB a message."""

_RETRY_AFTER_S = 1.0


@dataclass(frozen=True, slots=True)
class Changes:
    """What a subscriber is told at once.

    Attributes:
        position: Resume after it.
        user_ids: Users that changed, each once.
        catalogue: Whether the catalogue changed.
        reset: Whether more may have changed than is told: forget everything.
        live: Whether changes are told from here on; while they are not, nothing may be kept.
    """

    position: str
    user_ids: Sequence[str] = ()
    catalogue: bool = False
    reset: bool = False
    live: bool = True


class ChangeRing:
    """The last changes, numbered. For one event loop."""

    def __init__(self, capacity: int) -> None:
        """Stores how many changes are kept, at least 1; it is not live yet."""
        # Change n lies at place n % capacity; None stands for the catalogue.
        self._changes: list[str | None] = [None] * capacity
        self._newest = 0
        self._feed_id = secrets.token_hex(8)
        self._live = False
        self._news = asyncio.Event()
        self._num_subscribers = 0
        self._num_told = 0

    @property
    def newest(self) -> int:
        """Number of the newest change since the feed last began."""
        return self._newest

    @property
    def num_told(self) -> int:
        """How many changes were ever told."""
        return self._num_told

    @property
    def is_live(self) -> bool:
        """Whether changes are told."""
        return self._live

    @property
    def num_subscribers(self) -> int:
        """How many follow now."""
        return self._num_subscribers

    def add(self, user_ids: Sequence[str], *, catalogue: bool = False) -> None:
        """Tells of changes; without any, that there are none."""
        for change in (*user_ids, None) if catalogue else user_ids:
            self._newest += 1
            self._num_told += 1
            self._changes[self._newest % len(self._changes)] = change
        self._wake()

    def reset(self, *, live: bool) -> None:
        """Begins anew: whatever was told before is not the whole truth.

        Args:
            live: Whether changes are told from here on.
        """
        self._feed_id = secrets.token_hex(8)
        self._newest = 0
        self._live = live
        self._wake()

    async def follow(self, position: str) -> AsyncGenerator[Changes, None]:
        """Tells of all changes after a position, until it is closed.

        Args:
            position: Of the last `Changes` that the subscriber had; one that the ring does not know, the empty one
                included, begins with a reset.

        Raises:
            ResourceExhausted: There are too many subscribers, or this one was slower than the changes.
        """
        if self._num_subscribers >= MAX_SUBSCRIBERS:
            raise ResourceExhausted(
                f"{MAX_SUBSCRIBERS} subscribers follow already", reason="TOO_MANY_SUBSCRIBERS", retry_after_s=10.0
            )
        self._num_subscribers += 1
        try:
            feed_id, number = self._resume(position)
            if feed_id != self._feed_id:
                feed_id, number = self._feed_id, self._newest
                yield Changes(self._position(), reset=True, live=self._live)
            while True:
                news = self._news
                if feed_id != self._feed_id:
                    feed_id, number = self._feed_id, self._newest
                    yield Changes(self._position(), reset=True, live=self._live)
                    continue
                if number < self._tail():
                    raise ResourceExhausted(
                        "the subscriber was slower than the changes; follow again and begin with a reset",
                        reason="SUBSCRIBER_TOO_SLOW",
                        retry_after_s=_RETRY_AFTER_S,
                    )
                if number == self._newest:
                    await news.wait()
                    if number == self._newest and feed_id == self._feed_id and self._live:
                        yield Changes(self._position())
                    continue
                told = self._after(number)
                number += len(told)
                yield Changes(
                    f"{feed_id}.{number}",
                    list(dict.fromkeys(change for change in told if change is not None)),
                    catalogue=None in told,
                )
        finally:
            self._num_subscribers -= 1

    def _after(self, number: int) -> list[str | None]:
        last = min(self._newest, number + MAX_CHANGES_AT_ONCE)
        return [self._changes[place % len(self._changes)] for place in range(number + 1, last + 1)]

    def _resume(self, position: str) -> tuple[str, int]:
        feed_id, _, text = position.partition(".")
        if feed_id != self._feed_id or not (text.isascii() and text.isdigit()):
            return "", 0
        number = int(text)
        return (feed_id, number) if self._tail() <= number <= self._newest else ("", 0)

    def _tail(self) -> int:
        """Returns the number of the newest change that the ring has forgotten."""
        return max(0, self._newest - len(self._changes))

    def _position(self) -> str:
        return f"{self._feed_id}.{self._newest}"

    def _wake(self) -> None:
        self._news.set()
        self._news = asyncio.Event()
