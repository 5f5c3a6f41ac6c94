"""Values of an older build are read and rewritten; those of a newer one are refused in words that say so."""

import asyncio
import json
import time
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from marquee.client.channel import open_channel
from marquee.client.errors import read_error
from marquee.v1 import feature_service_pb2 as pb2

from feature_service import keys
from feature_service.histories import Histories, WatchEvent
from feature_service.keys import user_keys
from feature_service.lifetimes import Lifetimes
from feature_service.state_rewriting import Rewritten, rewrite_states
from feature_service.store import StoreMarks
from feature_service.stored_users import StoredUser
from feature_service.users import Users
from feature_service.value_format import HEADER, OLD_STATE_FORMAT, STATE_FORMAT, FormatError, Profile, unpack_header
from service_runtime.errors import Unavailable
from tests.feature_service import messages as make

GOLDEN = json.loads((Path(__file__).parent / "golden" / "state_format_1.json").read_text(encoding="utf-8"))
OLD_USERS = ("u", "untouched", "gone")


@pytest.fixture
async def old_store(link) -> None:
    """A Redis with what the last build of format 1 left."""
    for name, value in GOLDEN.items():
        user_id, _, kind = name.partition(".")
        if kind:
            await link.command("SET", getattr(user_keys(user_id), kind), bytes.fromhex(value))


@pytest.fixture
def store(link, marks) -> SimpleNamespace:
    """Users and histories over it, some time later."""
    lifetimes = Lifetimes()

    def now_ms() -> int:
        return 1_800_000_000_001

    return SimpleNamespace(
        users=Users(link, marks, now_ms, log_entries=1000, lifetimes=lifetimes, max_ahead_ms=86_400_000),
        histories=Histories(link, marks, now_ms, window=4, log_entries=1000, lifetimes=lifetimes),
    )


async def read(store, *user_ids: str) -> list[StoredUser]:
    return list((await store.users.read(user_ids or OLD_USERS, with_seen=True)).rows())


def content(user: StoredUser) -> tuple:
    """What is known of a user, whatever the format that he is stored in."""
    assert user.header is not None
    header = user.header
    history = (user.entries, header.num_older, header.num_watched, user.seen)
    return user.profile, history, user.deleted_at_ms, user.version.partition(".")[2]


async def bodies(link) -> list[bytes]:
    """What follows on the headers of the states as they lie in Redis."""
    states = await link.read([user_keys(user).state for user in OLD_USERS])
    return [state[HEADER.size if state[0] == STATE_FORMAT else HEADER.size - 8 :] for state in states]


async def rewrite(link, **options) -> Rewritten:
    settings = {"write": True, "per_second": 1e9, "clock": time.monotonic, "progress": lambda _: None, **options}
    return await rewrite_states(link, **settings)


@pytest.mark.usefixtures("old_store")
async def test_the_bytes_of_the_older_format_are_understood(store):
    """As they were left by the last build that wrote them."""
    u, untouched, gone = await read(store)

    assert u.profile == Profile("F", 30, "Künstlerin", "55117")
    assert (u.header.num_entries, u.header.num_older, u.header.num_watched) == (4, 1, 5)
    assert untouched.header.num_watched == 1
    assert gone.deleted_at_ms == 1_700_000_000_000


@pytest.mark.usefixtures("old_store")
async def test_a_write_rewrites_the_user_and_only_him(store, link):
    """The next build may drop the older format once all have been."""
    await store.histories.write([WatchEvent("new", "u", 1, 5.0, 3000)])

    formats = [unpack_header(state).format for state in await link.read([user_keys(user).state for user in OLD_USERS])]
    assert formats == [STATE_FORMAT, OLD_STATE_FORMAT, OLD_STATE_FORMAT]


@pytest.mark.usefixtures("old_store")
async def test_all_are_rewritten_without_a_change(store, link):
    """Profiles, histories, versions, deletions and ends of life are the same; a second run has nothing to do."""
    await link.command("PEXPIREAT", user_keys("untouched").state, 4_102_444_800_000)
    before = [content(user) for user in await read(store)], await bodies(link)

    counted = await rewrite(link, write=False)
    first = await rewrite(link)
    second = await rewrite(link)

    after = await read(store)
    assert counted.by_format == first.by_format == Counter({OLD_STATE_FORMAT: 3})
    assert second.by_format == Counter({STATE_FORMAT: 3})
    assert ([content(user) for user in after], await bodies(link)) == before
    assert await link.command("PTTL", user_keys("untouched").state) > 0


async def test_a_rewriting_that_was_stopped_goes_on(store, link):
    """It does not look again at what it has seen, and says so."""
    for first in range(0, 3000, 500):
        events = [WatchEvent("e", f"user {number}", 1, None, 1000) for number in range(first, first + 500)]
        await store.histories.write(events)

    def stop(found: Rewritten) -> None:
        if found.by_format.total() > 600:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        await rewrite(link, progress=stop)
    rest = await rewrite(link)
    again = await rewrite(link)

    assert rest.resumed
    assert rest.by_format.total() < 3000
    assert not again.resumed
    assert again.by_format.total() >= 3000


async def test_rewriting_keeps_to_its_pace(store, link):
    """600 users at 1000 a second take no less than a page of them does."""
    await store.histories.write([WatchEvent("e", f"user {number}", 1, None, 1000) for number in range(600)])
    began = time.monotonic()

    await rewrite(link, per_second=1000)

    assert time.monotonic() - began > 0.2


async def make_newer(link, user_id: str) -> None:
    """Stores a user as a build to come may."""
    await link.command("SET", user_keys(user_id).state, bytes([STATE_FORMAT + 1]) + bytes(HEADER.size + 20))


async def test_users_of_a_newer_format_are_counted_and_left(store, link):
    """The command says that there are some, and breaks none."""
    await make_newer(link, "later")
    [before] = await link.read([user_keys("later").state])

    found = await rewrite(link)

    assert found.num_newer == 1
    assert await link.read([user_keys("later").state]) == [before]


@pytest.mark.parametrize("call", ["read", "write", "upsert", "delete", "import"])
async def test_a_user_of_a_newer_format_is_refused_and_stays(feature_stub, link, call):
    """FAILED_PRECONDITION that says what is wrong, by whichever RPC he is met; nothing of him is lost."""
    await feature_stub.BatchUpsertMovies(make.movies(1))
    await make_newer(link, "u")
    [before] = await link.read([user_keys("u").state])
    calls = {
        "read": lambda: feature_stub.BatchGetUsers(make.users("u")),
        "write": lambda: feature_stub.WriteEvents(make.write(make.event())),
        "upsert": lambda: feature_stub.BatchUpsertUsers(make.upsert_user(age=3)),
        "delete": lambda: feature_stub.DeleteUser(pb2.DeleteUserRequest(user_id="u")),
        "import": lambda: feature_stub.ImportHistories(make.import_histories({"u": [("m0", 5, 1)]})),
    }

    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await calls[call]()

    error = read_error(raised.value)
    assert (error.code, error.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "NEWER_FORMAT")
    assert error.message == "a user's state has format 3, this build knows 1 and 2"
    assert await link.read([user_keys("u").state]) == [before]


async def test_seen_sets_and_tombstones_of_a_newer_format_are_refused(store, link):
    """Nothing is guessed at: what cannot be read is not written over."""
    place = user_keys("u")
    await store.histories.write([WatchEvent("e", "u", 1, None, 1000)])
    await link.command("SET", place.seen, b"\x03abc")
    with pytest.raises(FormatError, match="a seen set has format 3"):
        await store.histories.write([WatchEvent("f", "u", 20_000, None, 2000)])
    await link.command("DEL", place.state)
    await link.command("SET", place.tombstone, b"\x02" + bytes(40))
    with pytest.raises(FormatError, match="a tombstone has format 2"):
        await store.users.delete("u")
    with pytest.raises(FormatError, match="a tombstone has format 2"):
        await store.histories.write([WatchEvent("e", "u", 1, None, 1000)])
    with pytest.raises(FormatError, match="a tombstone has format 2"):
        await read(store, "u")


async def test_a_store_that_a_newer_build_wrote_to_is_not_served(feature_address, link):
    """The service stops answering as soon as it sees it, and would not begin to."""
    marks = StoreMarks(link)
    assert int(await link.command("GET", keys.FORMAT)) == STATE_FORMAT
    await link.command("SET", keys.FORMAT, STATE_FORMAT + 1)

    with pytest.raises(FormatError, match="a newer build wrote to this store: it has format 3"):
        await marks.require_usable()
    async with open_channel(feature_address) as channel:
        await _until_not_serving(channel)
    assert int(await link.command("GET", keys.FORMAT)) == STATE_FORMAT + 1


async def test_a_store_that_is_being_restored_is_not_served(marks, link):
    """Half of it is there."""
    await link.command("SET", keys.RESTORING, "backup")

    with pytest.raises(Unavailable, match="restore it again"):
        await marks.require_usable()


async def _until_not_serving(channel) -> None:
    async with asyncio.timeout(30):
        async for answer in health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest()):
            if answer.status == health_pb2.HealthCheckResponse.NOT_SERVING:
                return
