"""Keeps what was read of users near, and lets go of it when it changes. Knows versions and times; no RPC and no tensor.

A value may be answered from only as long as somebody would tell of its change. So nothing is kept while the feed of
changes is lost, and a value that was being read when its user changed is used for that answer and not kept: nobody can
say whether the read saw the change.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from itertools import islice
from typing import Generic, TypeVar

T = TypeVar("T")


class Lookup(Enum):
    """How a lookup ended."""

    HIT = "hit"
    MISS = "miss"
    """There was nothing of the user, or it had expired."""
    BYPASS = "bypass"
    """There was a value that would not do for this caller, or nothing may be kept now."""


@dataclass(frozen=True, slots=True)
class Cached(Generic[T]):
    """One user.

    Attributes:
        value: What was read.
        counter: Number of the change that the value includes, within the user's partition of the store.
        size_bytes: What it takes.
        expires_at_ms: When a part of it expires, 0 if never.
    """

    value: T
    counter: int
    size_bytes: int
    expires_at_ms: int

    def has_expired(self, now_ms: int) -> bool:
        """Tells whether a part of it is no longer true; at the moment itself it is not."""
        return 0 < self.expires_at_ms <= now_ms


@dataclass(slots=True, eq=False)
class Reading:
    """A read that is under way.

    Attributes:
        changed: Users that changed since it began.
        void: Whether anything may have changed since it began.
    """

    changed: set[str] = field(default_factory=set)
    void: bool = False


class NearCache(Generic[T]):
    """The users that were asked for last, by bytes. For one event loop; the feed of changes drives it.

    Attributes:
        counts: Lookups so far, by how they ended.
        num_resets: How often everything was let go of.
    """

    def __init__(self, max_bytes: int) -> None:
        """Stores how much is kept at most; 0 keeps nothing. It is not live yet."""
        self._max_bytes = max_bytes
        # The one that was asked for longest ago comes first.
        self._entries: OrderedDict[str, Cached[T]] = OrderedDict()
        self._size_bytes = 0
        self._readings: set[Reading] = set()
        self._live = False
        self.counts = dict.fromkeys(Lookup, 0)
        self.num_resets = 0

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def max_bytes(self) -> int:
        """How much is kept at most."""
        return self._max_bytes

    @property
    def size_bytes(self) -> int:
        """What the kept values take."""
        return self._size_bytes

    @property
    def is_live(self) -> bool:
        """Whether anything may be kept."""
        return self._live

    def get(
        self, user_id: str, at_least: int, now_ms: int, will_do: Callable[[T], bool] = lambda value: True
    ) -> T | None:
        """Returns what is kept of a user.

        Args:
            user_id: The user.
            at_least: Number of the change that the caller knows of, 0 if of none.
            now_ms: The time in ms since the epoch.
            will_do: Whether a value has all that the caller needs.
        """
        entry = self._entries.get(user_id) if self._live else None
        if entry is not None and entry.has_expired(now_ms):
            # A read that began before may bring back what was true before the value that has expired.
            self.invalidate((user_id,))
            entry = None
        if entry is None:
            self.counts[Lookup.MISS if self._live else Lookup.BYPASS] += 1
            return None
        if entry.counter < at_least or not will_do(entry.value):
            self.counts[Lookup.BYPASS] += 1
            return None
        self.counts[Lookup.HIT] += 1
        self._entries.move_to_end(user_id)
        return entry.value

    def peek_each(self, user_ids: Sequence[str], now_ms: int) -> list[T | None]:
        """Returns what is kept of each of some users, None where he would have to be read; not counted.

        The caller knows of no change. If he answers from it, he says so by `note_hits`.
        """
        if not self._live:
            return [None] * len(user_ids)
        entry_of = self._entries.get
        entries = [entry_of(user_id) for user_id in user_ids]
        return [None if entry is None or 0 < entry.expires_at_ms <= now_ms else entry.value for entry in entries]

    def note_hits(self, user_ids: Sequence[str]) -> None:
        """Counts users who were answered for from what is kept of them, which must be so still."""
        for user_id in user_ids:
            self._entries.move_to_end(user_id)
        self.counts[Lookup.HIT] += len(user_ids)

    def get_all(
        self, user_ids: Sequence[str], now_ms: int, will_do: Callable[[T], bool] = lambda value: True
    ) -> list[T | None]:
        """Returns what is kept of each of some users, for a caller who knows of no change; as `get` does.

        Args:
            user_ids: The users.
            now_ms: The time in ms since the epoch.
            will_do: Whether a value has all that the caller needs.
        """
        if not self._live:
            return [self.get(user_id, 0, now_ms, will_do) for user_id in user_ids]
        entry_of, note_use = self._entries.get, self._entries.move_to_end
        found: list[T | None] = []
        num_hits = 0
        for user_id in user_ids:
            entry = entry_of(user_id)
            if entry is None or 0 < entry.expires_at_ms <= now_ms or not will_do(entry.value):
                found.append(self.get(user_id, 0, now_ms, will_do))
            else:
                note_use(user_id)
                found.append(entry.value)
                num_hits += 1
        self.counts[Lookup.HIT] += num_hits
        return found

    def peek(self, user_id: str) -> T | None:
        """Returns what is kept of a user, for who has it already and wants to know whether it is; not counted."""
        entry = self._entries.get(user_id)
        return None if entry is None else entry.value

    def newest(self, num_users: int) -> list[str]:
        """Returns the users that were asked for last, the last one first; at most so many."""
        return list(islice(reversed(self._entries), num_users))

    def begin(self) -> Reading:
        """Notes that a read begins; `end` or `fail` must follow."""
        reading = Reading(void=not self._live)
        self._readings.add(reading)
        return reading

    def end(self, reading: Reading, found: Iterable[tuple[str, Cached[T]]]) -> None:
        """Keeps what a read found, but for the users that changed meanwhile."""
        self._readings.discard(reading)
        if reading.void:
            return
        for user_id, entry in found:
            kept = self._entries.get(user_id)
            older = kept is not None and kept.counter > entry.counter
            if user_id not in reading.changed and not older:
                self._keep(user_id, entry)

    def fail(self, reading: Reading) -> None:
        """Notes that a read found nothing."""
        self._readings.discard(reading)

    def amend(self, user_id: str, known: T, better: T, more_bytes: int) -> None:
        """Keeps something that was worked out from a value with it, if that value is still what is kept.

        Args:
            user_id: The user.
            known: The value, as `get` gave it or `end` was given it.
            better: The same and what was worked out.
            more_bytes: What it takes beside the value; negative if it takes less.
        """
        entry = self._entries.get(user_id)
        if entry is not None and entry.value is known:
            size_bytes = entry.size_bytes + more_bytes
            self._keep(user_id, Cached(better, entry.counter, size_bytes, entry.expires_at_ms))

    def invalidate(self, user_ids: Iterable[str]) -> None:
        """Lets go of users that changed."""
        for user_id in user_ids:
            self._let_go_of(user_id)
            for reading in self._readings:
                reading.changed.add(user_id)

    def reset(self, *, live: bool) -> None:
        """Lets go of everything.

        Args:
            live: Whether changes are told from here on.
        """
        self._entries.clear()
        self._size_bytes = 0
        for reading in self._readings:
            reading.void = True
        self._live = live
        self.num_resets += 1

    def _keep(self, user_id: str, entry: Cached[T]) -> None:
        if entry.size_bytes > self._max_bytes:
            return
        self._let_go_of(user_id)
        while self._size_bytes + entry.size_bytes > self._max_bytes:
            self._let_go_of(next(iter(self._entries)))
        self._entries[user_id] = entry
        self._size_bytes += entry.size_bytes

    def _let_go_of(self, user_id: str) -> None:
        entry = self._entries.pop(user_id, None)
        if entry is not None:
            self._size_bytes -= entry.size_bytes
