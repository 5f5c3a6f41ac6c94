"""Any interleaving of reads, writes, changes told, expiries and lost feeds, against a cache that is all in plain lists.

The model keeps every fill and every drop with its place in time and works out from them what must be kept now: the
newest fill that began after the last time its user changed or the feed was lost. Beside it stands a store, and what a
caller may expect of an answer whatever the cache does.
"""

from dataclasses import dataclass, replace

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from model_service.near_cache import Cached, Lookup, NearCache, Reading

USERS = ["a", "b"]
ROOM_FOR_ALL = 1000
ROOM_FOR_ONE = 15
SIZE_BYTES = 10
DURING = ["change", "untold change", "read", "read", "lose", "come back", "time"]


@dataclass(frozen=True, eq=False)
class Value:
    """What the store held: the number of its last change, and when it expires; `extra` is worked out from it."""

    counter: int
    expires_at_ms: int
    extra: int = 0


@dataclass(frozen=True, eq=False)
class Fill:
    """One user of one read that ended well."""

    value: Value
    began: int
    ended: int
    was_live: bool


class AgainstALog(RuleBasedStateMachine):
    """A store that changes, a feed that tells of it later or breaks, reads that take their time."""

    @initialize(max_bytes=st.sampled_from([ROOM_FOR_ALL, ROOM_FOR_ALL, ROOM_FOR_ONE]))
    def begin(self, max_bytes: int) -> None:
        self.cache: NearCache[Value] = NearCache(max_bytes)
        self.max_bytes = max_bytes
        self.is_exact = max_bytes == ROOM_FOR_ALL
        self.moment = 0
        self.now_ms = 1000
        self.stored = dict.fromkeys(USERS, Value(0, 0))
        self.told = dict.fromkeys(USERS, 0)
        self.untold: list[str] = []
        self.readings: list[tuple[Reading, dict[str, Value], int, bool]] = []
        self.fills: dict[str, list[Fill]] = {user: [] for user in USERS}
        self.dropped = dict.fromkeys(USERS, 0)
        self.live = False
        self.num_resets = 0
        self.reset(live=True)

    @rule(user=st.sampled_from(USERS), ttl_ms=st.sampled_from([0, 2]), told_at_once=st.booleans())
    def write(self, user: str, ttl_ms: int, told_at_once: bool) -> None:
        self.stored[user] = Value(self.stored[user].counter + 1, self.now_ms + ttl_ms if ttl_ms else 0)
        self.untold.append(user)
        if told_at_once:
            self.tell(len(self.untold))

    @precondition(lambda self: self.untold)
    @rule(number=st.integers(1, 3))
    def tell(self, number: int) -> None:
        if not self.live:
            return
        users, self.untold = self.untold[:number], self.untold[number:]
        self.cache.invalidate(users)
        self.moment += 1
        for user in users:
            self.told[user] = self.stored[user].counter if user not in self.untold else self.told[user] + 1
            self.dropped[user] = self.moment

    @precondition(lambda self: self.moment % 4 == 0)
    @rule(live=st.sampled_from([True, True, False]))
    def reset(self, live: bool) -> None:
        """The feed begins anew or is lost; who begins anew has missed nothing from here on."""
        self.cache.reset(live=live)
        self.num_resets += 1
        self.moment += 1
        self.live = live
        self.dropped = dict.fromkeys(USERS, self.moment)
        if live:
            self.untold = []
            self.told = {user: stored.counter for user, stored in self.stored.items()}

    @rule(users=st.sets(st.sampled_from(USERS), min_size=1))
    def begin_a_read(self, users: set[str]) -> None:
        self.moment += 1
        seen = {user: replace(self.stored[user]) for user in sorted(users)}
        self.readings.append((self.cache.begin(), seen, self.moment, self.live))

    @precondition(lambda self: self.readings)
    @rule(which=st.integers(0, 3), fails=st.sampled_from([False, False, True]))
    def end_a_read(self, which: int, fails: bool) -> None:
        reading, seen, began, was_live = self.readings.pop(which % len(self.readings))
        self.moment += 1
        if fails:
            self.cache.fail(reading)
            return
        self.cache.end(
            reading,
            [
                (user, Cached(value, value.counter, SIZE_BYTES, value.expires_at_ms))
                for user, value in seen.items()
                if not self.has_expired(value)
            ],
        )
        for user, value in seen.items():
            if not self.has_expired(value):
                self.fills[user].append(Fill(value, began, self.moment, was_live))

    @rule(users=st.sets(st.sampled_from(USERS), min_size=1), works=st.booleans(), then_ms=st.integers(0, 2))
    def read(self, users: set[str], works: bool = False, then_ms: int = 0) -> None:
        self.begin_a_read(users)
        self.end_a_read(-1, fails=False)
        if works:
            self.work_something_out(min(users), 0)
        self.now_ms += then_ms

    @rule(
        users=st.sets(st.sampled_from(USERS), min_size=1),
        during=st.lists(
            st.sampled_from(["change", "untold change", "read", "read", "lose", "come back", "time"]), max_size=3
        ),
        ttl_ms=st.sampled_from([0, 2]),
    )
    def read_slowly(self, users: set[str], during: list[str], ttl_ms: int) -> None:
        """What happens during a read is what the policy is about, and too rare if left to chance."""
        self.begin_a_read(users)
        for event in during:
            if event.endswith("change"):
                self.write(min(users), ttl_ms, told_at_once=event == "change")
            elif event == "read":
                self.read(users)
            elif event == "time":
                self.pass_time(1)
            else:
                self.reset(live=event == "come back")
        self.end_a_read(-1, fails=False)

    @rule(user=st.sampled_from(USERS), back=st.integers(0, 2))
    def work_something_out(self, user: str, back: int) -> None:
        """From what is kept, or from what was kept before."""
        if back >= len(self.fills[user]):
            return
        fill = self.fills[user][-1 - back]
        better = replace(fill.value, extra=fill.value.extra + 1)
        is_kept = self.kept(user) is fill
        self.cache.amend(user, fill.value, better, 1)
        if is_kept:
            self.fills[user][-1 - back] = replace(fill, value=better)

    @rule(ms=st.integers(1, 2))
    def pass_time(self, ms: int) -> None:
        self.now_ms += ms

    @invariant()
    def every_answer_is_as_the_log_says(self) -> None:
        for user in USERS:
            for at_least in (0, self.stored[user].counter):
                before = dict(self.cache.counts)
                answer = self.cache.get(user, at_least, self.now_ms)
                [outcome] = [kind for kind, count in self.cache.counts.items() if count != before[kind]]
                if answer is not None:
                    assert self.live
                    assert answer.counter >= max(self.told[user], at_least)
                    assert not self.has_expired(answer)
                if self.is_exact:
                    assert (answer, outcome) == self.expected(user, at_least)
                    fill = self.kept(user)
                    if fill is not None and self.has_expired(fill.value):
                        self.moment += 1
                        self.dropped[user] = self.moment

    @invariant()
    def it_stays_within_its_bytes(self) -> None:
        assert self.cache.size_bytes <= self.max_bytes
        assert self.cache.num_resets == self.num_resets
        assert self.live or len(self.cache) == 0

    def kept(self, user: str) -> Fill | None:
        """Returns the newest fill that nothing speaks against; of two of the same change the one that ended last."""
        alive = [fill for fill in self.fills[user] if fill.was_live and fill.began > self.dropped[user]]
        return max(alive, key=lambda fill: (fill.value.counter, fill.ended), default=None)

    def expected(self, user: str, at_least: int) -> tuple[Value | None, Lookup]:
        fill = self.kept(user)
        if not self.live:
            return None, Lookup.BYPASS
        if fill is None or self.has_expired(fill.value):
            return None, Lookup.MISS
        if fill.value.counter < at_least:
            return None, Lookup.BYPASS
        return fill.value, Lookup.HIT

    def has_expired(self, value: Value) -> bool:
        return 0 < value.expires_at_ms <= self.now_ms


AgainstALog.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
TestAgainstALog = AgainstALog.TestCase
