"""What happened can be read again in pages, nothing is missed unawares, and nothing grows without bound."""

from dataclasses import dataclass, field

import grpc
import numpy as np
import pytest
from marquee.client.errors import read_error
from marquee.client.user_digest import user_digest
from marquee.v1 import feature_service_pb2 as pb2

from feature_service.event_log import START, EventLog, PositionError, position_token
from feature_service.histories import Histories, WatchEvent
from feature_service.keys import NUM_PARTITIONS, event_log, user_keys
from feature_service.lifetimes import Lifetimes
from feature_service.users import Users
from feature_service.value_format import event_hash
from tests.feature_service import messages as make

DAY_MS = 86_400_000


@pytest.fixture
async def stub(feature_stub):
    """A store with 300 movies."""
    await feature_stub.BatchUpsertMovies(make.movies(300))
    return feature_stub


@dataclass
class Exported:
    """All pages of an export together."""

    events: list[tuple[str, str, float, int, int]] = field(default_factory=list)
    deleted: list[pb2.DeletedUser] = field(default_factory=list)
    num_pages: int = 0
    gap: bool = False
    position: str = ""


async def export(stub, position: str = "", page_size: int = 0) -> Exported:
    """Reads the log to its end."""
    found = Exported(position=position)
    while True:
        page = await stub.ExportEvents(pb2.ExportEventsRequest(position=found.position, page_size=page_size))
        events = page.events
        users = np.frombuffer(events.user_indices, "<u4").tolist()
        movies = np.frombuffer(events.movie_indices, "<u4").tolist()
        found.events += zip(
            [events.user_ids[index] for index in users],
            [events.movie_ids[index] for index in movies],
            np.frombuffer(events.ratings, "<f4").tolist(),
            np.frombuffer(events.event_times_ms, "<i8").tolist(),
            np.frombuffer(events.event_hashes, "<u8").tolist(),
            strict=True,
        )
        found.deleted += page.deleted_users
        found.gap |= page.gap
        found.num_pages += 1
        found.position = page.next_position
        if page.num_behind == 0:
            return found


async def test_what_was_written_is_read_again(stub):
    """User, movie, stars, time and what stands for the event's id; repeated and older events are not in the log."""
    await stub.WriteEvents(
        make.write(
            make.event("a", movie_id="m1", rating=4.5, time_ms=500),
            make.event("a", movie_id="m1", rating=4.5, time_ms=500),
            make.event("b", movie_id="m1", time_ms=400),
            make.event("c", "v", "m2", time_ms=900),
        )
    )
    await stub.WriteEvents(make.write(make.event("a", movie_id="m1", rating=4.5, time_ms=500)))

    found = await export(stub)

    assert sorted(found.events)[0] == ("u", "m1", 4.5, 500, event_hash("a"))
    assert [event[:2] + event[3:] for event in sorted(found.events)[1:]] == [("v", "m2", 900, event_hash("c"))]
    assert not found.gap


async def test_an_import_is_not_in_the_log(stub):
    """What came in bulk is known to who loaded it."""
    await stub.ImportHistories(make.import_histories({"u": [("m1", 4, 100)]}))

    assert (await export(stub)).events == []


async def test_an_event_older_than_a_full_window_is_in_the_log(stub):
    """The store keeps only that the movie was seen; the trainer may learn from it all the same."""
    for first in range(0, 200, 100):
        await stub.WriteEvents(
            make.write(*(make.event(f"e{i}", movie_id=f"m{i}", time_ms=1000 + i) for i in range(first, first + 100)))
        )

    reply = await stub.WriteEvents(make.write(make.event("old", movie_id="m250", rating=3, time_ms=5)))

    assert reply.results[0].status == pb2.EVENT_STATUS_STALE
    assert ("u", "m250", 3.0, 5, event_hash("old")) in (await export(stub)).events


async def test_an_event_is_logged_once_however_often_it_comes(stub):
    """Also after newer ones pushed it out of the window, when the state does not know it any more."""
    events = [make.event(f"e{i}", movie_id=f"m{i}", rating=3, time_ms=1000 + i) for i in range(300)]
    for first in range(0, 300, 100):
        await stub.WriteEvents(make.write(*events[first : first + 100]))

    again = await stub.WriteEvents(make.write(*events))

    logged = (await export(stub)).events
    assert {result.status for result in again.results} == {pb2.EVENT_STATUS_STALE, pb2.EVENT_STATUS_DUPLICATE}
    assert len(logged) == len(set(logged)) == 300


async def test_a_deletion_is_told_without_the_name(stub):
    """Who knows the id finds it by its digest; a reader of the log does not learn it."""
    await stub.WriteEvents(make.write(make.event(user_id="alice")))
    start = (await export(stub)).position

    await stub.DeleteUser(pb2.DeleteUserRequest(user_id="alice"))

    found = await export(stub, start)
    assert [deleted.user_digest for deleted in found.deleted] == [user_digest("alice")]
    assert found.deleted[0].deleted_at.seconds > 0
    assert found.events == []


async def test_pages_add_up_to_the_log(stub):
    """Small pages hold each event exactly once, and go on where the last one ended."""
    events = [make.event(f"e{i}", f"user {i % 90}", f"m{i % 300}", i % 5, time_ms=1000 + i) for i in range(900)]
    await stub.WriteEvents(make.write(*events))

    small = await export(stub, page_size=64)
    whole = await export(stub)
    await stub.WriteEvents(make.write(make.event("late", "v", "m7", time_ms=5000)))
    rest = await export(stub, small.position)

    assert small.num_pages > 5
    assert whole.num_pages == 1
    assert len(small.events) == 900
    assert sorted(small.events) == sorted(whole.events)
    assert [event[:2] for event in rest.events] == [("v", "m7")]


async def test_the_store_tells_where_the_log_ends(stub):
    """An export from there gives what happens from then on."""
    await stub.WriteEvents(make.write(make.event("before")))
    end = (await stub.GetStoreInfo(pb2.GetStoreInfoRequest())).log_position
    await stub.WriteEvents(make.write(make.event("after", movie_id="m3")))

    assert [event[4] for event in (await export(stub, end)).events] == [event_hash("after")]


@pytest.mark.parametrize(
    ("request_", "code", "reason"),
    [
        (pb2.ExportEventsRequest(position="nonsense"), grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST"),
        (pb2.ExportEventsRequest(position="a.b"), grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST"),
        (pb2.ExportEventsRequest(page_size=63), grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST"),
        (pb2.ExportEventsRequest(page_size=10_001), grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST"),
        (
            pb2.ExportEventsRequest(position=position_token("0" * 16, START)),
            grpc.StatusCode.FAILED_PRECONDITION,
            "FOREIGN_EPOCH",
        ),
    ],
)
async def test_a_position_that_is_none_is_refused(stub, request_, code, reason):
    """Each with the reason that tells a caller what to do."""
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await stub.ExportEvents(request_)

    assert refused.value.code() == code
    assert read_error(refused.value).reason == reason


async def test_a_position_later_than_the_log_is_refused(stub):
    """As after a restore from a backup: nobody could say what was lost."""
    epoch = (await stub.GetStoreInfo(pb2.GetStoreInfoRequest())).store_epoch

    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await stub.ExportEvents(pb2.ExportEventsRequest(position=position_token(epoch, (7,) * NUM_PARTITIONS)))

    assert read_error(refused.value).reason == "POSITION_AHEAD"


@dataclass
class Clock:
    """A wall clock that stands until it is moved."""

    now_ms: int = 100 * DAY_MS

    def __call__(self) -> int:
        return self.now_ms


class Logged:
    """The parts that write and trim the log, on one clock."""

    def __init__(self, link, marks, log_entries: int = 1000) -> None:
        self.clock = Clock()
        self.histories = Histories(link, marks, self.clock, window=5, log_entries=log_entries, lifetimes=Lifetimes())
        self.users = Users(link, marks, self.clock, log_entries=log_entries, lifetimes=Lifetimes(), max_ahead_ms=DAY_MS)
        self.log = EventLog(link, marks, self.clock, max_age_ms=DAY_MS)

    async def watch(self, *times_ms: int) -> None:
        await self.histories.write([WatchEvent(f"e{time}", "u", time % 50, None, time) for time in times_ms])


@pytest.fixture
async def logged(link, marks) -> Logged:
    return Logged(link, marks)


async def test_old_entries_go_and_leave_a_gap(logged):
    """Who reads from before them is told; who had read them misses nothing."""
    await logged.watch(1, 2, 3)
    read = await logged.log.read("", 64 * 10)
    logged.clock.now_ms += DAY_MS + 1
    await logged.watch(4)

    dropped = await logged.log.trim()

    assert dropped == 3
    assert (await logged.log.read("", 64 * 10)).gap
    rest = await logged.log.read(position_token(read.epoch, read.positions), 64 * 10)
    assert not rest.gap
    assert len(rest.entries) == 1


async def test_a_log_that_was_trimmed_to_nothing_still_shows_the_gap(logged):
    """An empty log is not the same as one to which nothing was written."""
    await logged.watch(1, 2)
    logged.clock.now_ms += 2 * DAY_MS

    await logged.log.trim()

    assert (await logged.log.read("", 64)).gap


async def test_a_registered_export_holds_trimming_back(logged):
    """What it has not read stays however old it is, until it moves on or lets go."""
    await logged.watch(1)
    read = await logged.log.read("", 64)
    token = position_token(read.epoch, read.positions)
    await logged.log.hold("trainer", token)
    await logged.watch(2, 3)
    logged.clock.now_ms += 2 * DAY_MS

    assert await logged.log.trim() == 1
    rest = await logged.log.read(token, 640)
    assert not rest.gap
    assert len(rest.entries) == 2

    await logged.log.hold("trainer", "")
    assert await logged.log.trim() == 2


async def test_a_log_is_bounded_whoever_holds_it(link, marks):
    """Beyond its number of entries the oldest go, registered or not: a gap says so."""
    logged = Logged(link, marks, log_entries=100)
    await logged.log.hold("trainer", position_token((await marks.ensure())[0], START))

    for first in range(0, 3000, 500):
        await logged.watch(*range(first, first + 500))

    size = await link.command("XLEN", event_log(user_keys("u").partition))
    assert size < 400
    assert (await logged.log.read("", 640)).gap


async def test_long_logs_are_trimmed_to_the_end(logged):
    """Trimming looks at a thousand entries at a time and does not stop there."""
    for first in range(0, 900, 300):
        await logged.watch(*range(first, first + 300))
    logged.clock.now_ms += 2 * DAY_MS

    assert await logged.log.trim() == 900


async def test_a_token_is_checked_before_redis_is_asked(logged):
    """Nonsense has a name."""
    for token in ("x", ".", "0123456789abcdef.", "0123456789abcdef.AAAA", "é.é"):
        with pytest.raises(PositionError):
            await logged.log.read(token, 64)
