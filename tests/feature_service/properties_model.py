"""Says in plain Python what the store must answer. Knows users, events and times; knows no bytes, Redis or message.

It is written from what the contract promises and not from the scripts: dictionaries instead of packed values, and
nothing is ever removed by a clock, only no longer told.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

DAY_MS = 86_400_000
APPLIED, DUPLICATE, STALE = "A", "D", "S"
FOUND, NOT_FOUND, EXPIRED = "FOUND", "NOT_FOUND", "EXPIRED"


@dataclass(frozen=True)
class Watched:
    """An event about one movie; an imported one has hash 0."""

    movie: int
    rating: float | None
    time_ms: int
    hash: int = 0

    def age(self) -> tuple[int, int, float]:
        """By which the newest event of a movie is found."""
        return self.time_ms, self.hash, -math.inf if self.rating is None else self.rating


@dataclass(frozen=True)
class Row:
    """What readers are told of a user, but for his version."""

    status: str
    profile: dict[str, str | int]
    history: list[tuple[int, float | None, int]]
    seen: list[int]
    deleted_at_ms: int
    expires_at_ms: int


@dataclass(frozen=True)
class Lives:
    """How long things live, in ms; 0 is for ever."""

    profile_ms: int = 0
    history_ms: int = 0
    visible_ms: int = 0


@dataclass
class History:
    """What is known of what a user watched: within the window per movie the newest event, and the newest rated one."""

    window: int
    newest: dict[int, Watched] = field(default_factory=dict)
    rated: dict[int, Watched] = field(default_factory=dict)
    seen: set[int] = field(default_factory=set)

    def take(self, event: Watched) -> str:
        """Merges one event; the window is trimmed later."""
        status = STALE
        known = self.newest.get(event.movie)
        if known is None or event.age() > known.age():
            self.newest[event.movie], status = event, APPLIED
        elif event.age() == known.age():
            status = DUPLICATE
        rated = self.rated.get(event.movie)
        if event.rating is not None:
            if rated is None or event.age() > rated.age():
                self.rated[event.movie], status = event, APPLIED
            elif event.age() == rated.age() and status == STALE:
                status = DUPLICATE
        self.seen.add(event.movie)
        return status

    def trim(self) -> tuple[int, int] | None:
        """Keeps the newest movies; returns time and number of the oldest one kept, if the window is full."""
        kept = sorted(self.newest, key=lambda movie: (self.newest[movie].time_ms, movie), reverse=True)[: self.window]
        self.newest = {movie: self.newest[movie] for movie in kept}
        self.rated = {movie: event for movie, event in self.rated.items() if movie in self.newest}
        if len(kept) < self.window:
            return None
        floor = (self.newest[kept[-1]].time_ms, kept[-1])
        self.rated = {movie: event for movie, event in self.rated.items() if (event.time_ms, movie) >= floor}
        return floor

    def copy(self) -> "History":
        """Returns one that changes apart from this one."""
        return History(self.window, dict(self.newest), dict(self.rated), set(self.seen))

    def entries(self) -> list[tuple[int, float | None, int]]:
        """Returns movie, stars and time, newest first."""
        rows = []
        for movie in sorted(self.newest, key=lambda movie: (self.newest[movie].time_ms, movie), reverse=True):
            rated = self.rated.get(movie)
            rows.append((movie, None if rated is None else rated.rating, self.newest[movie].time_ms))
        return rows


def history_of(events: Sequence[Watched], window: int) -> History:
    """Returns what a set of events comes to, whatever their order was."""
    history = History(window)
    for event in events:
        history.take(event)
    history.trim()
    return history


class ModelUser:
    """One user of the model."""

    def __init__(self, window: int) -> None:
        self._window = window
        self.deleted_at_ms = 0
        self.logged: list[Watched] = []
        """What WriteEvents put into the event log."""
        self.imported: list[Watched] = []
        """What was imported since he was last deleted."""
        self.deletions: list[int] = []
        """The times of deletion that the event log tells."""
        self.lost_a_history = False
        """Whether a history expired: then the log alone does not tell what is left."""
        self._drop()

    def _drop(self) -> None:
        self.stored = False
        self.profile: dict[str, str | int] = {}
        self.profile_until = self.history_until = self.forgotten_at = 0
        self.history = History(self._window)

    def row(self, now: int) -> Row:
        """Returns what a reader is told."""
        status = self.status(now)
        if status != FOUND:
            return Row(status, {}, [], [], self.deleted_at_ms, 0)
        has_profile, has_history = self._has_profile(now), self._has_history(now)
        times = [self.history_until] if has_history else []
        times += [self.profile_until] if has_profile or not has_history else []
        return Row(
            status,
            dict(self.profile) if has_profile else {},
            self.history.entries() if has_history else [],
            sorted(self.history.seen) if has_history else [],
            self.deleted_at_ms,
            min((time for time in times if time), default=0),
        )

    def status(self, now: int) -> str:
        """Returns whether he is known."""
        if not self.stored:
            return NOT_FOUND
        if self._has_profile(now) or self._has_history(now):
            return FOUND
        expired = not _alive(self.profile_until, now) or (self.history.seen and not _alive(self.history_until, now))
        return EXPIRED if expired else FOUND

    def upsert(self, now: int, lives: Lives, given: dict[str, str | int], cleared: Sequence[str]) -> bool:
        """Changes his profile; returns whether readers are told something else than before."""
        before = self.row(now)
        profile = {**before.profile, **given}
        profile = {name: value for name, value in profile.items() if name not in cleared}
        until = now + lives.profile_ms if lives.profile_ms else 0
        changed = before.status != FOUND or profile != before.profile
        if changed or until != self.profile_until:
            self._forget_expired(now)
            self.stored, self.profile, self.profile_until = True, profile, until
            self._plan_forgetting(lives)
        return changed

    def write(self, now: int, lives: Lives, events: Sequence[Watched], *, imported: bool) -> tuple[bool, list[str]]:
        """Merges events; returns whether readers are told something else, and what became of each."""
        history = self.history.copy() if self._has_history(now) else History(self._window)
        seen, old_floor = set(history.seen), history.trim()
        statuses = []
        for event in events:
            late = self.deleted_at_ms > 0 and event.time_ms <= self.deleted_at_ms
            statuses.append(STALE if late else history.take(event))
            if imported and not late:
                self.imported.append(event)
        floor = history.trim()
        for position, event in enumerate(events):
            if statuses[position] != APPLIED:
                continue
            age = event.time_ms, event.movie
            if not imported and not (old_floor is not None and age < old_floor and event.movie in seen):
                self.logged.append(event)
            if floor is not None and age < floor:
                statuses[position] = STALE
        changed = history != (self.history if self._has_history(now) else History(self._window))
        if changed:
            self._forget_expired(now)
            self.stored, self.history = True, history
            self.history_until = now + lives.history_ms if lives.history_ms else 0
            self._plan_forgetting(lives)
        return changed, statuses

    def delete(self, now: int) -> bool:
        """Forgets him; returns whether there was somebody to forget.

        An event from a clock that is ahead, which is at most a day, is as much forgotten as the others.
        """
        existed = self.stored
        newest = max((event.time_ms for event in self.history.newest.values()), default=0)
        deleted_at_ms = max(now, self.deleted_at_ms, min(newest, now + DAY_MS))
        if existed or deleted_at_ms > self.deleted_at_ms:
            self.deleted_at_ms = deleted_at_ms
            self.deletions.append(deleted_at_ms)
            self.imported.clear()
            self.lost_a_history = False
            self._drop()
        return existed

    def redis_forgets(self, now: int) -> bool:
        """Lets Redis's clock reach `now`; returns whether the user vanished."""
        if not self.stored or not self.forgotten_at or self.forgotten_at > now:
            return False
        self._forget_expired(now)
        self._drop()
        return True

    def replayed(self) -> History:
        """Returns what the event log and what was imported come to, as somebody knows who has only these."""
        kept = [event for event in self.logged if not self.deletions or event.time_ms > self.deletions[-1]]
        return history_of([*kept, *self.imported], self._window)

    def _has_profile(self, now: int) -> bool:
        return bool(self.profile) and _alive(self.profile_until, now)

    def _has_history(self, now: int) -> bool:
        return bool(self.history.seen) and _alive(self.history_until, now)

    def _forget_expired(self, now: int) -> None:
        """Makes what has expired as if it never was."""
        if not _alive(self.profile_until, now):
            self.profile, self.profile_until = {}, 0
        if not _alive(self.history_until, now):
            self.lost_a_history |= bool(self.history.seen)
            self.history, self.history_until = History(self._window), 0

    def _plan_forgetting(self, lives: Lives) -> None:
        """Redis keeps a user as long as anything of him lives, and for a while after."""
        ends = []
        if self.profile or not self.history.seen:
            ends.append(self.profile_until)
        if self.history.seen:
            ends += [self.history_until, self.profile_until or self.history_until]
        self.forgotten_at = 0 if 0 in ends else max(ends) + lives.visible_ms


def _alive(until: int, now: int) -> bool:
    return until == 0 or until > now
