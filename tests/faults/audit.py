"""Compares what the store holds with what was written to it, and with its event log, by a plain model of a history."""

import asyncio
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

import grpc
import numpy as np
from google.protobuf.message import Message
from marquee.v1 import feature_service_pb2 as pb2
from marquee.v1 import feature_service_pb2_grpc, user_pb2

from feature_service.value_format import event_hash
from tests.faults.load import REPEATED
from tests.feature_service import messages as make

_WINDOW = 200
_USERS_PER_READ = 100
_GIVE_UP_AFTER_S = 60.0

T = TypeVar("T")


class Watched(NamedTuple):
    """An event; of two about one movie the greater is the newer."""

    time_ms: int
    hash: int
    rating: float
    movie: int


Entry = tuple[int, float | None, int]
"""Movie, stars, time."""


@dataclass(frozen=True)
class Audit:
    """What was found.

    Attributes:
        num_lost: Acknowledged events that the store does not know of.
        num_twice: Events that the log holds more than once, and movies that a user counts more than once.
        num_torn: Users whose history is not what the events of the log make of them.
        num_wrong: Users whose history is not what all acknowledged events make of them.
    """

    num_lost: int
    num_twice: int
    num_torn: int
    num_wrong: int


def history_of(events: Iterable[Watched]) -> list[Entry]:
    """Says in plain Python what the history of these events is, whatever their order, newest first."""
    newest: dict[int, Watched] = {}
    rated: dict[int, Watched] = {}
    for event in events:
        newest[event.movie] = max(event, newest.get(event.movie, event))
        if event.rating >= 0:
            rated[event.movie] = max(event, rated.get(event.movie, event))
    kept = sorted(newest.values(), key=_age, reverse=True)[:_WINDOW]
    if len(kept) == _WINDOW:
        rated = {movie: event for movie, event in rated.items() if _age(event) >= _age(kept[-1])}
    return [(event.movie, rated[event.movie].rating if event.movie in rated else None, event.time_ms) for event in kept]


async def audit(stub: "feature_service_pb2_grpc.FeatureServiceAsyncStub", acknowledged: Sequence[pb2.Event]) -> Audit:
    """Reads all users of these events, and the event log from its beginning to its end."""
    written: dict[str, set[Watched]] = defaultdict(set)
    for event in acknowledged:
        written[event.user_id].add(_watched(event))
    logged = await _log(stub)
    by_user: dict[str, set[Watched]] = defaultdict(set)
    for user_id, watched in logged:
        by_user[user_id].add(watched)
    num_lost = num_torn = num_wrong = 0
    num_twice = sum(count - 1 for count in logged.values())
    user_ids = sorted(written.keys() | by_user.keys())
    for first in range(0, len(user_ids), _USERS_PER_READ):
        reply = await _patiently(stub.BatchGetUsers, make.users(*user_ids[first : first + _USERS_PER_READ]))
        for user in reply.users:
            stored = [_entry(entry) for entry in user.history]
            events = written[user.user_id]
            num_lost += sum(not _known(event, stored, by_user[user.user_id]) for event in events)
            num_twice += len(stored) - len({movie for movie, _, _ in stored})
            num_twice += max(0, user.num_watched - len({event.movie for event in by_user[user.user_id]}))
            num_torn += stored != history_of(by_user[user.user_id])
            num_wrong += stored != history_of(events)
    return Audit(num_lost, num_twice, num_torn, num_wrong)


async def _patiently(read: Callable[..., Awaitable[T]], request: Message) -> T:
    """Reads as often as it takes: a cluster that starves for CPU fails over once more after the last kill."""
    async with asyncio.timeout(_GIVE_UP_AFTER_S):
        while True:
            try:
                return await read(request, timeout=10)
            except grpc.aio.AioRpcError as error:
                if error.code() not in REPEATED:
                    raise
                await asyncio.sleep(0.1)


async def _log(stub: "feature_service_pb2_grpc.FeatureServiceAsyncStub") -> Counter[tuple[str, Watched]]:
    found: Counter[tuple[str, Watched]] = Counter()
    page = pb2.ExportEventsResponse(num_behind=1)
    while page.num_behind:
        page = await _patiently(stub.ExportEvents, pb2.ExportEventsRequest(position=page.next_position))
        assert not page.gap
        events = page.events
        columns = (
            np.frombuffer(events.user_indices, "<u4").tolist(),
            np.frombuffer(events.event_times_ms, "<i8").tolist(),
            np.frombuffer(events.event_hashes, "<u8").tolist(),
            np.nan_to_num(np.frombuffer(events.ratings, "<f4"), nan=-1.0).tolist(),
            np.frombuffer(events.movie_indices, "<u4").tolist(),
        )
        for user, time_ms, hash_, rating, movie in zip(*columns, strict=True):
            number = int(events.movie_ids[movie].removeprefix("m"))
            found[events.user_ids[user], Watched(time_ms, hash_, rating, number)] += 1
    return found


def _known(event: Watched, stored: Sequence[Entry], logged: set[Watched]) -> bool:
    if event in logged:
        return True
    times = {movie: time_ms for movie, _, time_ms in stored}
    if times.get(event.movie, -1) >= event.time_ms:
        return True
    return len(stored) == _WINDOW and (event.time_ms, event.movie) < (stored[-1][2], stored[-1][0])


def _age(event: Watched) -> tuple[int, int]:
    return event.time_ms, event.movie


def _watched(event: pb2.Event) -> Watched:
    rating = event.rating if event.HasField("rating") else -1.0
    movie = int(event.movie_id.removeprefix("m"))
    return Watched(event.event_time.ToMilliseconds(), event_hash(event.event_id), rating, movie)


def _entry(entry: user_pb2.HistoryEntry) -> Entry:
    rating = entry.rating if entry.HasField("rating") else None
    return int(entry.movie_id.removeprefix("m")), rating, entry.event_time.ToMilliseconds()
