"""A real store under a clock of its own, asked by RPC messages from code that is not async. Knows no model of it."""

import asyncio
import math
import random
import time
from collections import defaultdict
from collections.abc import Coroutine, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from types import TracebackType
from typing import Any, TypeVar, cast

import numpy as np
from marquee.v1 import feature_service_pb2 as pb2
from marquee.v1 import user_pb2

from feature_service import keys
from feature_service.catalogue import Catalogue
from feature_service.change_ring import ChangeRing
from feature_service.change_watch import ChangeWatch
from feature_service.cluster_link import ClusterLink
from feature_service.event_log import EventLog
from feature_service.handlers import FeatureHandlers
from feature_service.histories import Histories
from feature_service.lifetimes import Lifetimes
from feature_service.redis_link import RedisLink
from feature_service.store import StoreMarks
from feature_service.users import Users
from feature_service.value_format import CataloguePointer, StoredMovie, pack_movie, pack_pointer
from service_runtime.server import Call
from tests.feature_service import messages as make
from tests.feature_service.properties_model import DAY_MS, Lives, Row, Watched
from tests.redis_server import ON_CLUSTER, RunningRedis

WINDOW = 3
USERS = ["u0", "u44", "u1"]
"""The first two lie in the same partition."""
START_MS = 4_102_444_800_000
"""The year 2100: later than the clock of Redis, so that only the clock of the test lets things expire."""
NUM_MOVIES = 16_385
"""One more than seen sets of the smaller format hold."""

_TOLD_WITHIN_S = 30.0
_STATUS = {
    pb2.EVENT_STATUS_APPLIED: "A",
    pb2.EVENT_STATUS_DUPLICATE: "D",
    pb2.EVENT_STATUS_STALE: "S",
}
_NO_CALL = cast(Call, None)  # no handler of these looks at it
Result = TypeVar("Result")


@dataclass
class Clock:
    """A wall clock that stands until it is moved."""

    now_ms: int = START_MS

    def __call__(self) -> int:
        return self.now_ms


@dataclass(frozen=True)
class ColumnsRow:
    """One user of the view COLUMNS."""

    row: Row
    version: str


@dataclass(frozen=True)
class FullRow:
    """One user of the view FULL."""

    status: str
    profile: dict[str, str | int]
    history: list[tuple[int, float | None, int]]
    num_watched: int
    deleted_at_ms: int
    version: str


class World:
    """feature_service without its gRPC server, on a Redis: `with World(redis) as world`."""

    def __init__(self, redis: RunningRedis) -> None:
        self._runner = asyncio.Runner()
        self._run(self._open(redis))

    def __enter__(self) -> "World":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._run(self._close())
        self._runner.close()

    def empty(self) -> None:
        """Forgets all users, their log and the time; the catalogue stays."""
        self.clock = Clock()
        self._run(self._empty())
        self._told.clear()

    def start(self, lives: Lives) -> None:
        """Starts the service, with lifetimes of its own, on what is stored."""
        lifetimes = Lifetimes(lives.profile_ms, lives.history_ms, lives.visible_ms)
        link, marks, clock = self._link, self._marks, self.clock
        users = Users(link, marks, clock, log_entries=10_000, lifetimes=lifetimes, max_ahead_ms=DAY_MS)
        histories = Histories(link, marks, clock, window=WINDOW, log_entries=10_000, lifetimes=lifetimes)
        event_log = EventLog(link, marks, clock, max_age_ms=10**12)
        self._handlers = FeatureHandlers(users, histories, self._catalogue, event_log, self._ring, marks, clock, DAY_MS)

    def redis_forgets(self) -> None:
        """Does what Redis does on its own once its clock is where ours is."""
        self._run(self._forget())

    def wait_until_told(self, who: int) -> None:
        """Waits until StreamChanges named a user, or said that anybody may have changed, since it last did."""
        self._run(asyncio.wait_for(self._hear(USERS[who]), _TOLD_WITHIN_S))

    def read_columns(self) -> list[ColumnsRow]:
        """Returns all users."""
        request = make.users(*USERS, view=pb2.USER_VIEW_COLUMNS, include_seen=True)
        columns = self._run(self._handlers.batch_get_users(request, _NO_CALL)).columns
        numbers, stars, times, seen = (
            np.frombuffer(payload, dtype).tolist()
            for payload, dtype in (
                (columns.movie_numbers, "<u4"),
                (columns.ratings, "<f4"),
                (columns.event_times_ms, "<i8"),
                (columns.seen_numbers, "<u4"),
            )
        )
        history = [(n, None if math.isnan(s) else s, t) for n, s, t in zip(numbers, stars, times, strict=True)]
        per_user = zip(
            columns.statuses,
            columns.profiles,
            columns.user_versions,
            np.frombuffer(columns.lengths, "<u4").tolist(),
            np.frombuffer(columns.seen_lengths, "<u4").tolist(),
            np.frombuffer(columns.num_watched, "<u4").tolist(),
            np.frombuffer(columns.deleted_at_ms, "<i8").tolist(),
            np.frombuffer(columns.expires_at_ms, "<i8").tolist(),
            strict=True,
        )
        rows = []
        for status, profile, version, length, num_seen, num_watched, deleted_at_ms, expires_at_ms in per_user:
            assert num_watched == num_seen
            own, history = history[:length], history[length:]
            own_seen, seen = seen[:num_seen], seen[num_seen:]
            row = Row(_status(status), _fields(profile), own, own_seen, deleted_at_ms, expires_at_ms)
            rows.append(ColumnsRow(row, version))
        return rows

    def read_full(self, who: Sequence[int], limit: int) -> list[FullRow]:
        """Returns users with typed fields."""
        request = make.users(*(USERS[user] for user in who), history_limit=limit)
        reply = self._run(self._handlers.batch_get_users(request, _NO_CALL))
        assert [user.user_id for user in reply.users] == [USERS[user] for user in who]
        return [
            FullRow(
                _status(user.status),
                _fields(user.profile),
                [
                    (
                        int(entry.movie_id[1:]),
                        entry.rating if entry.HasField("rating") else None,
                        entry.event_time.ToMilliseconds(),
                    )
                    for entry in user.history
                ],
                user.num_watched,
                user.deleted_at.ToMilliseconds(),
                user.user_version,
            )
            for user in reply.users
        ]

    def write(self, events: Sequence[tuple[int, str, int, float | None, int]]) -> list[tuple[str, str]]:
        """Writes events; returns what became of each, and the versions."""
        request = make.write(*map(_event, events))
        reply = self._run(self._handlers.write_events(request, _NO_CALL))
        return [(_STATUS[result.status], result.user_version) for result in reply.results]

    def write_at_once(self, events: Sequence[tuple[int, str, int, float | None, int]]) -> None:
        """Writes each event by a call of its own, all at the same time."""

        async def race() -> None:
            calls = (self._handlers.write_events(make.write(_event(event)), _NO_CALL) for event in events)
            await asyncio.gather(*calls)

        self._run(race())

    def upsert(self, who: int, given: Mapping[str, Any], clear_fields: Sequence[str]) -> str:
        """Changes a profile; returns the version."""
        request = make.upsert_user(USERS[who], tuple(clear_fields), **given)
        (version,) = self._run(self._handlers.batch_upsert_users(request, _NO_CALL)).user_versions
        return version

    def delete(self, who: int) -> tuple[bool, str]:
        """Deletes a user; returns whether there was one, and the version."""
        request = pb2.DeleteUserRequest(user_id=USERS[who])
        reply = self._run(self._handlers.delete_user(request, _NO_CALL))
        return reply.deleted, reply.user_version

    def load(self, histories: Mapping[int, Sequence[Watched]]) -> tuple[int, int, Sequence[str]]:
        """Imports histories; returns how many entries changed something and how many did not, and the versions."""
        rows = {
            USERS[who]: [(f"m{e.movie}", math.nan if e.rating is None else e.rating, e.time_ms) for e in events]
            for who, events in histories.items()
        }
        reply = self._run(self._handlers.import_histories(make.import_histories(rows), _NO_CALL))
        return reply.num_applied, reply.num_unchanged, reply.user_versions

    def export(self, entries_a_partition: int) -> tuple[dict[str, list[Watched]], dict[str, list[int]]]:
        """Returns the events of each user, and the times of deletion of each digest, in pages of some size."""
        events: dict[str, list[Watched]] = defaultdict(list)
        deletions: dict[str, list[int]] = defaultdict(list)
        position, num_behind = "", 1
        while num_behind:
            request = pb2.ExportEventsRequest(position=position, page_size=keys.NUM_PARTITIONS * entries_a_partition)
            page = self._run(self._handlers.export_events(request, _NO_CALL))
            assert not page.gap
            position, num_behind = page.next_position, page.num_behind
            columns = (
                np.frombuffer(page.events.user_indices, "<u4").tolist(),
                np.frombuffer(page.events.movie_indices, "<u4").tolist(),
                np.frombuffer(page.events.ratings, "<f4").tolist(),
                np.frombuffer(page.events.event_times_ms, "<i8").tolist(),
                np.frombuffer(page.events.event_hashes, "<u8").tolist(),
            )
            for user, movie, stars, time_ms, number in zip(*columns, strict=True):
                event = Watched(
                    int(page.events.movie_ids[movie][1:]), None if math.isnan(stars) else stars, time_ms, number
                )
                events[page.events.user_ids[user]].append(event)
            for deletion in page.deleted_users:
                deletions[deletion.user_digest].append(deletion.deleted_at.ToMilliseconds())
        return events, deletions

    def _run(self, work: Coroutine[Any, Any, Result]) -> Result:
        return self._runner.run(work)

    async def _open(self, redis: RunningRedis) -> None:
        rng = random.Random(0)
        self.clock = Clock()
        security = None if redis.guard is None else redis.guard.security("test")
        kind = ClusterLink if ON_CLUSTER else RedisLink
        self._link = kind(redis.url, timeout_s=20, max_connections=8, security=security)
        await self._link.probe()
        self._marks = StoreMarks(self._link)
        self._catalogue = Catalogue(self._link, self._marks, rng)
        self._ring = ChangeRing(10_000)
        self._told: set[str] = set()
        self._news = asyncio.Event()
        await self._store_catalogue()
        self._watching = asyncio.create_task(ChangeWatch(self._link, self._ring, rng, time.monotonic).keep())
        self._following = asyncio.create_task(self._follow())
        await asyncio.wait_for(self._hear(""), _TOLD_WITHIN_S)

    async def _close(self) -> None:
        for task in (self._following, self._watching):
            task.cancel()
        await asyncio.gather(self._following, self._watching, return_exceptions=True)
        await self._link.close()

    async def _store_catalogue(self) -> None:
        pointer = CataloguePointer("0123456789abcdef", 1, NUM_MOVIES)
        rows: list[bytes | int] = []
        for number in range(NUM_MOVIES):
            rows += (number, pack_movie(StoredMovie(f"m{number}", 1)))
        await self._link.command("HSET", keys.movie_rows(pointer.catalogue_id), *rows)
        await self._link.command("SET", keys.CATALOGUE, pack_pointer(pointer))
        await self._catalogue.newest()

    async def _empty(self) -> None:
        for user_id in USERS:
            place = keys.user_keys(user_id)
            logs = (keys.log_position(place.partition), keys.event_log(place.partition))
            # Not the counters of versions, which never go back.
            await self._link.command("DEL", place.state, place.seen, place.tombstone, *logs)

    async def _forget(self) -> None:
        for user_id in USERS:
            place = keys.user_keys(user_id)
            for key in (place.state, place.seen):
                left_ms = await self._link.command("PTTL", key)
                # Half a second more than what reading the clock after Redis did may cost.
                if left_ms >= 0 and time.time() * 1000 + left_ms - 500 <= self.clock.now_ms:
                    await self._link.command("DEL", key)

    async def _follow(self) -> None:
        async with aclosing(self._ring.follow("")) as changes:
            async for told in changes:
                if told.reset and told.live:
                    # A busy machine may keep Redis from answering for so long that the feed is taken up anew.
                    self._told.update(USERS, [""])
                self._told.update(told.user_ids)
                self._news.set()

    async def _hear(self, user_id: str) -> None:
        while user_id not in self._told:
            self._news.clear()
            await self._news.wait()
        self._told.discard(user_id)


def _event(event: tuple[int, str, int, float | None, int]) -> pb2.Event:
    who, event_id, movie, rating, time_ms = event
    return make.event(event_id, USERS[who], f"m{movie}", rating, time_ms)


def _status(status: user_pb2.UserStatus.ValueType) -> str:
    return user_pb2.UserStatus.Name(status).removeprefix("USER_STATUS_")


def _fields(profile: user_pb2.UserProfile) -> dict[str, str | int]:
    return {field.name: value for field, value in profile.ListFields()}
