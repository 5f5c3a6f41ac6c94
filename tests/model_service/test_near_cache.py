"""Whatever happens in whatever order, no answer is older than the cache was told."""

from model_service.near_cache import Cached, Lookup, NearCache

USERS = ["a", "b", "c"]


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


def test_an_older_value_does_not_come_back_for_one_that_expired() -> None:
    """A read that began before the change saw what was true before it; who is read next is read anew."""
    cache = live()
    slow = cache.begin()
    fill(cache, "a", entry(1, expires_at_ms=100))
    assert cache.get("a", 0, 100) is None

    cache.end(slow, [("a", entry(0))])

    assert cache.get("a", 0, 100) is None


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


def test_what_was_worked_out_goes_with_the_value() -> None:
    """It is kept with the value that it came from, counts for the bytes, and is lost with it."""
    cache = live()
    fill(cache, "a", entry(7))
    cache.amend("a", 7, 70, 5)
    cache.amend("a", 6, 60, 5)

    assert cache.get("a", 0, 0) == 70
    assert cache.size_bytes == 15
    cache.invalidate(["a"])
    cache.amend("a", 70, 71, 5)
    assert cache.get("a", 0, 0) is None


def test_a_value_that_would_not_do_is_passed_by() -> None:
    """It stays for those for whom it will do."""
    cache = live()
    fill(cache, "a", entry(7))

    assert cache.get("a", 0, 0, lambda value: value > 7) is None
    assert cache.get("a", 0, 0, lambda value: value == 7) == 7
    assert cache.counts == {Lookup.HIT: 1, Lookup.MISS: 0, Lookup.BYPASS: 1}
