"""Whatever happens in whatever order, no answer is older than the cache was told."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from model_service.near_cache import Cached, Lookup, NearCache

USERS = ["a", "b", "c"]
FEW = ["a", "b"]


def entry(counter: int, size_bytes: int = 10, expires_at_ms: int = 0) -> Cached[int]:
    return Cached(counter, counter, size_bytes, expires_at_ms)


def live(max_bytes: int = 100) -> NearCache[int]:
    cache: NearCache[int] = NearCache(max_bytes)
    cache.reset(live=True)
    return cache


def fill(cache: NearCache[int], user_id: str, value: Cached[int]) -> None:
    cache.end(cache.begin(), [(user_id, value)])


def test_what_was_read_is_kept() -> None:
    """The second time nobody has to be asked."""
    cache = live()
    fill(cache, "a", entry(7))

    assert cache.get("a", 0, 0) == 7
    assert cache.get("b", 0, 0) is None
    assert cache.counts == {Lookup.HIT: 1, Lookup.MISS: 1, Lookup.BYPASS: 0}


def test_a_caller_who_knows_of_a_newer_change_is_not_answered() -> None:
    """His own write counts more than what is near; others may go on with it."""
    cache = live()
    fill(cache, "a", entry(7))

    assert cache.get("a", 8, 0) is None
    assert cache.get("a", 7, 0) == 7
    assert cache.counts[Lookup.BYPASS] == 1


def test_a_change_during_a_read_keeps_it_from_being_kept() -> None:
    """The read may have been before the change; other users of the same read are kept."""
    cache = live()
    reading = cache.begin()
    cache.invalidate(["a"])
    cache.end(reading, [("a", entry(1)), ("b", entry(2))])

    assert cache.get("a", 0, 0) is None
    assert cache.get("b", 0, 0) == 2


def test_a_read_that_began_before_a_reset_is_not_kept() -> None:
    """Also if the feed is live again when it ends."""
    cache = live()
    reading = cache.begin()
    cache.reset(live=False)
    cache.reset(live=True)
    cache.end(reading, [("a", entry(1))])

    assert len(cache) == 0


def test_a_slower_read_does_not_replace_what_a_later_one_found() -> None:
    """Two reads may end in another order than they began."""
    cache = live()
    slow = cache.begin()
    fill(cache, "a", entry(5))
    cache.end(slow, [("a", entry(4))])

    assert cache.get("a", 0, 0) == 5


def test_an_expired_value_is_not_answered() -> None:
    """At the moment itself it has expired."""
    cache = live()
    fill(cache, "a", entry(1, expires_at_ms=100))

    assert cache.get("a", 0, 99) == 1
    assert cache.get("a", 0, 100) is None
    assert len(cache) == 0


def test_nothing_is_kept_without_a_feed() -> None:
    """A cache that nobody tells of changes is no cache; neither is one without room."""
    lost: NearCache[int] = NearCache(100)
    fill(lost, "a", entry(1))
    none = live(max_bytes=0)
    fill(none, "a", entry(1))

    assert lost.get("a", 0, 0) is None
    assert none.get("a", 0, 0) is None
    assert lost.counts[Lookup.BYPASS] == 1


def test_the_least_recently_asked_for_goes_first() -> None:
    """The cache stays within its bytes."""
    cache = live(max_bytes=30)
    for user_id in USERS:
        fill(cache, user_id, entry(1))
    cache.get("a", 0, 0)
    fill(cache, "d", entry(1))

    assert [cache.get(user_id, 0, 0) is not None for user_id in ("a", "b", "c", "d")] == [True, False, True, True]
    assert cache.size_bytes == 30


class AgainstAModel(RuleBasedStateMachine):
    """A store that changes, a feed that tells of it later or breaks, reads that take their time.

    The model is what a caller may expect: an answer from the cache includes every change that the cache was told of,
    and every change that the caller knows of.
    """

    @initialize()
    def begin(self) -> None:
        self.cache: NearCache[int] = NearCache(25)
        self.now_ms = 0
        self.stored = dict.fromkeys(FEW, 0)
        self.expires = dict.fromkeys(FEW, 0)
        self.told = dict.fromkeys(FEW, 0)
        self.untold: list[tuple[str, int]] = []
        self.readings: list[tuple[object, dict[str, Cached[int]]]] = []
        self.connected = True
        self.cache.reset(live=True)

    @rule(user=st.sampled_from(FEW), ttl_ms=st.sampled_from([0, 4, 8]))
    def write(self, user: str, ttl_ms: int) -> None:
        self.stored[user] += 1
        self.expires[user] = self.now_ms + ttl_ms if ttl_ms else 0
        self.untold.append((user, self.stored[user]))

    @precondition(lambda self: self.connected and self.untold)
    @rule(number=st.integers(1, 3))
    def tell(self, number: int) -> None:
        for user, counter in self.untold[:number]:
            self.told[user] = counter
        self.cache.invalidate([user for user, _ in self.untold[:number]])
        del self.untold[:number]

    @rule(comes_back=st.booleans())
    def break_the_feed(self, comes_back: bool) -> None:
        self.cache.reset(live=False)
        self.connected = comes_back
        if comes_back:
            self.told = dict(self.stored)
            self.untold = []
            self.cache.reset(live=True)

    @rule(users=st.sets(st.sampled_from(FEW), min_size=1))
    def begin_a_read(self, users: set[str]) -> None:
        reading = self.cache.begin()
        found = {
            user: Cached(self.stored[user], self.stored[user], 10, self.expires[user])
            for user in users
            if not 0 < self.expires[user] <= self.now_ms
        }
        self.readings.append((reading, found))

    @precondition(lambda self: self.readings)
    @rule(which=st.integers(0, 5), fails=st.booleans())
    def end_a_read(self, which: int, fails: bool) -> None:
        reading, found = self.readings.pop(which % len(self.readings))
        if fails:
            self.cache.fail(reading)  # type: ignore[arg-type]
        else:
            self.cache.end(reading, found.items())  # type: ignore[arg-type]

    @rule(ms=st.integers(1, 2))
    def pass_time(self, ms: int) -> None:
        self.now_ms += ms

    @invariant()
    def every_answer_is_what_a_caller_may_expect(self) -> None:
        for user, stored in self.stored.items():
            for at_least in (0, stored):
                answered = self.cache.get(user, at_least, self.now_ms)
                if answered is None:
                    continue
                assert self.connected
                assert answered >= max(self.told[user], at_least)
                if answered == stored:
                    assert not 0 < self.expires[user] <= self.now_ms

    @invariant()
    def it_stays_within_its_bytes(self) -> None:
        assert self.cache.size_bytes <= 25


AgainstAModel.TestCase.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
TestAgainstAModel = AgainstAModel.TestCase
