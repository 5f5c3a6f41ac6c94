"""Each kind of data lives as long as it is told to, and what has expired is as if it never was."""

import time
from dataclasses import dataclass

import pytest
from marquee.client.user_version import UserVersion

from feature_service.histories import Histories, WatchEvent
from feature_service.keys import user_keys
from feature_service.lifetimes import Lifetimes
from feature_service.stored_users import EXPIRED, FOUND, NOT_FOUND, StoredUser
from feature_service.users import ProfileChange, Users
from feature_service.value_format import HEADER, OLD_STATE_FORMAT, Profile, unpack_header

HOUR_MS = 3_600_000
YEAR_2100_MS = 4_102_444_800_000
"""Later than the clock of Redis, so that only the clock of the test lets things expire."""


@dataclass
class Clock:
    """A wall clock that stands until it is moved."""

    now_ms: int = YEAR_2100_MS

    def __call__(self) -> int:
        return self.now_ms


class Store:
    """Users whose profile lives ten hours and whose history lives two."""

    def __init__(self, link, marks, **lifetimes) -> None:
        self.clock = Clock()
        lives = Lifetimes(**{"profile_ms": 10 * HOUR_MS, "history_ms": 2 * HOUR_MS, **lifetimes})
        self.users = Users(link, marks, self.clock, log_entries=1000, lifetimes=lives, max_ahead_ms=24 * HOUR_MS)
        self.histories = Histories(link, marks, self.clock, window=5, log_entries=1000, lifetimes=lives)

    async def watch(self, movie: int, rating: float | None = None) -> str:
        [(_, version)] = await self.histories.write([WatchEvent(f"e{movie}", "u", movie, rating, 1000 + movie)])
        return version

    async def upsert(self, age: int) -> str:
        [version] = await self.users.upsert({"u": ProfileChange(Profile(age=age), frozenset())})
        return version

    async def read(self) -> StoredUser:
        return next((await self.users.read(["u"], with_seen=True)).rows())

    def pass_hours(self, hours: float) -> None:
        self.clock.now_ms += int(hours * HOUR_MS)


@pytest.fixture
def store(link, marks) -> Store:
    return Store(link, marks)


def num_entries(user: StoredUser) -> int:
    return 0 if user.header is None else user.header.num_entries


async def test_a_history_expires_and_the_profile_stays(store):
    """What was watched is gone, the seen set with it; the person is still known."""
    await store.upsert(30)
    await store.watch(1)
    store.pass_hours(1.9)
    before = await store.read()
    store.pass_hours(0.2)
    after = await store.read()

    assert (num_entries(before), before.header.num_watched, before.seen != b"") == (1, 1, True)
    assert (num_entries(after), after.header.num_watched, after.seen) == (0, 0, b"")
    assert after.profile.age == 30
    assert (before.status, before.profile_status, before.history_status) == (FOUND, FOUND, FOUND)
    assert (after.status, after.profile_status, after.history_status) == (FOUND, FOUND, EXPIRED)


async def test_a_part_that_was_never_stored_is_not_found(store):
    """Neither a history that nobody wrote nor one of nobody has expired."""
    await store.upsert(30)
    known = await store.read()
    [nobody] = (await store.users.read(["nobody"])).rows()

    assert (known.status, known.profile_status, known.history_status) == (FOUND, FOUND, NOT_FOUND)
    assert (nobody.status, nobody.profile_status, nobody.history_status) == (NOT_FOUND, NOT_FOUND, NOT_FOUND)


async def test_a_user_of_whom_all_expired_says_so(store):
    """Not the same as one whom nobody stored."""
    await store.upsert(30)
    await store.watch(1)
    store.pass_hours(10.1)

    user = await store.read()

    assert (user.status, user.profile_status, user.history_status) == (EXPIRED, EXPIRED, EXPIRED)
    assert user.header is None


async def test_writing_refreshes_what_is_written(store):
    """An event keeps the history alive and not the profile; a profile written again lives on, also unchanged."""
    await store.upsert(30)
    for movie in range(4):
        await store.watch(movie)
        store.pass_hours(1.5)
    assert num_entries(await store.read()) == 4
    await store.upsert(30)
    store.pass_hours(5)

    user = await store.read()

    assert user.profile.age == 30
    assert num_entries(user) == 0


async def test_an_event_sent_again_refreshes_nothing(store):
    """A retry is no activity."""
    await store.watch(1)
    store.pass_hours(1.5)
    await store.watch(1)
    store.pass_hours(1)

    assert (await store.read()).status == EXPIRED


async def test_what_expired_does_not_come_back(store):
    """The next event begins a new history: movies, ratings and the seen set of the old one are gone."""
    await store.watch(1, 5.0)
    await store.watch(2)
    store.pass_hours(3)
    await store.watch(2)

    user = await store.read()

    assert num_entries(user) == 1
    assert user.header.num_watched == 1


async def test_versions_never_go_back(store, link):
    """Not over expiry, and not once Redis has forgotten the user: what was read last counts less or the same."""
    written = UserVersion.parse(await store.watch(1))
    store.pass_hours(3)
    expired = UserVersion.parse((await store.read()).version)
    await link.command("DEL", user_keys("u").state, user_keys("u").seen)
    forgotten = UserVersion.parse((await store.read()).version)
    rewritten = UserVersion.parse(await store.watch(3))

    assert expired.includes(written)
    assert forgotten.includes(expired)
    assert rewritten.includes(forgotten)
    assert not forgotten.includes(rewritten)


async def test_a_history_that_lives_for_ever_from_now_on_keeps_what_was_seen(link, marks):
    """The end that the seen set had from before is taken away with that of the history."""
    await Store(link, marks, history_ms=HOUR_MS).watch(1)
    await Store(link, marks, history_ms=0).watch(2)

    assert await link.command("PTTL", user_keys("u").seen) == -1


async def test_a_profile_written_again_lives_as_long_as_is_set_now(link, marks):
    """Also if it is the same and lives for ever from now on."""
    await Store(link, marks, profile_ms=HOUR_MS).upsert(30)
    store = Store(link, marks, profile_ms=0)
    await store.upsert(30)
    store.pass_hours(2)

    assert (await store.read()).profile.age == 30


async def test_who_is_stored_again_after_all_expired_is_new(link, marks):
    """He is found, though nothing is known of him, and readers with the old version are told."""
    store = Store(link, marks, profile_ms=0)
    await store.watch(1)
    store.pass_hours(3)
    expired = await store.read()
    await store.users.upsert({"u": ProfileChange(Profile(), frozenset())})
    again = await store.read()

    assert (expired.status, again.status) == (EXPIRED, FOUND)
    assert again.header is not None
    assert not UserVersion.parse(expired.version).includes(UserVersion.parse(again.version))


async def test_a_cleared_profile_is_not_taken_for_an_expired_one(link, marks):
    """The history expired long before; that is over once the user was written since."""
    store = Store(link, marks, profile_ms=0)
    await store.watch(1)
    store.pass_hours(3)
    await store.upsert(30)
    await store.users.upsert({"u": ProfileChange(Profile(), frozenset({"age"}))})

    assert (await store.read()).status == FOUND


async def test_redis_forgets_what_expired_a_while_ago(link, marks):
    """State and seen set have an end; a user with a part that lives for ever has none."""
    until = []
    for lifetimes in ({}, {"profile_ms": 0}, {"history_ms": 0}):
        await link.command("FLUSHALL")
        store = Store(link, marks, **lifetimes)
        await store.upsert(30)
        await store.watch(1)
        left_ms = [await link.command("PTTL", key) for key in (user_keys("u").state, user_keys("u").seen)]
        until.append([-1 if left < 0 else round((time.time() * 1000 + left) / HOUR_MS) for left in left_ms])

    profile, history = ((YEAR_2100_MS + Lifetimes().visible_ms) // HOUR_MS + hours for hours in (10, 2))
    assert until == [[profile, history], [-1, history], [-1, -1]]


async def test_the_first_moment_at_which_something_expires_is_told(store):
    """A cache must not keep the row for longer."""
    await store.upsert(30)
    profile_only = (await store.read()).expires_at_ms
    await store.watch(1)
    both = (await store.read()).expires_at_ms

    assert profile_only == YEAR_2100_MS + 10 * HOUR_MS
    assert both == YEAR_2100_MS + 2 * HOUR_MS


async def test_states_of_the_older_layout_are_read_and_rewritten(link, marks):
    """A build that knows one time of expiry left them; the first change of a user brings him up to date."""
    store = Store(link, marks, profile_ms=0, history_ms=0)
    await store.upsert(30)
    await store.watch(1, 4.5)
    key = user_keys("u").state
    [new] = await link.read([key])
    header = unpack_header(new)
    # One of the two times of expiry is missing, all else is the same.
    await link.command("SET", key, bytes([OLD_STATE_FORMAT]) + new[1:32] + new[40:])

    read = await store.read()
    await store.watch(2)
    [rewritten] = await link.read([key])

    assert read.header == header
    assert read.profile.age == 30
    assert read.entries == new[-24:]
    assert unpack_header(rewritten).format == header.format
    assert unpack_header(rewritten).num_entries == 2
    assert len(rewritten) == HEADER.size + header.profile_bytes + 2 * 24
    assert (await store.read()).profile.age == 30


async def test_a_user_of_whom_nothing_is_known_lives_as_long_as_a_profile(link, marks):
    """For ever, if profiles do."""
    until = []
    for profile_ms in (0, HOUR_MS):
        store = Store(link, marks, profile_ms=profile_ms)
        await store.users.upsert({"u": ProfileChange(Profile(), frozenset())})
        until.append((await store.read()).expires_at_ms)

    assert until == [0, YEAR_2100_MS + HOUR_MS]
