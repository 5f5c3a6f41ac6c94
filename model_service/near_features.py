"""Reads users from near where they are, and from feature_service where not. Knows rows; knows no batch and no tensor.

What is near is as new as the feed of changes is: milliseconds behind, and at most `SILENT_FOR_S` behind a feed that
died without a word. Who knows of a newer state says so and is read for.
"""

import asyncio
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import grpc.aio
import numpy as np
import structlog
from marquee.client.columns import UserRows
from marquee.client.user_version import UserVersion, UserVersionError
from marquee.v1 import feature_service_pb2

from model_service.features import FeatureReader, UsersRead, join_rows, split_rows
from model_service.near_cache import Cached, NearCache

_log = structlog.get_logger(__name__)

SILENT_FOR_S = 3.0
"""The feed speaks every second: who hears nothing for so long takes it for lost, as the contract says."""

_RETRY_S = 1.0
_NEVER = 1 << 62
"""A change later than any: no row that is near includes it."""

_ROW_BYTES = 1200
"""What a row takes beside its arrays' contents: ten arrays, a message, the entry."""


@dataclass(frozen=True, slots=True)
class NearRow:
    """One user as he was read.

    Attributes:
        rows: One row, with the movies ever watched.
        catalogue_id: Whose numbers it uses.
        epoch: Of the store.
        history_limit: Newest entries that were asked for.
    """

    rows: UserRows
    catalogue_id: str
    epoch: str
    history_limit: int


class NearFeatures:
    """A `FeatureReader` with a memory."""

    def __init__(self, reader: FeatureReader, cache: NearCache[NearRow], wall_clock: Callable[[], float]) -> None:
        """Stores who reads, what keeps, and what tells the seconds since the epoch."""
        self._reader = reader
        self._cache = cache
        self._wall_clock = wall_clock
        self._catalogue_version = 0

    async def read_users(
        self,
        user_ids: Sequence[str],
        history_limit: int,
        *,
        with_seen: bool,
        deadline: float,
        at_least: Mapping[str, str],
    ) -> UsersRead:
        """Reads users; only those are asked for who are not near.

        Args:
            user_ids: All different, at least one.
            history_limit: Newest entries wanted of each.
            with_seen: Whether all movies ever watched are needed too.
            deadline: When nobody waits any more, in monotonic seconds.
            at_least: Versions that callers know of, by user; those not named may be as old as the cache is.

        Raises:
            Unavailable: The store cannot be read now.
        """
        if not self._cache.is_live:
            for user_id in user_ids:
                self._cache.get(user_id, 0, 0)  # counted as passed by
            return await self._reader.read_users(user_ids, history_limit, with_seen=with_seen, deadline=deadline)
        now_ms = int(self._wall_clock() * 1000)
        near = {user_id: self._near(user_id, history_limit, at_least.get(user_id, ""), now_ms) for user_id in user_ids}
        missing = [user_id for user_id, row in near.items() if row is None]
        read = await self._read(missing, history_limit, deadline) if missing else None
        kept = {user_id: row for user_id, row in near.items() if row is not None}
        catalogue_ids = {row.catalogue_id for row in kept.values()} | ({read.catalogue_id} if read else set())
        if len(catalogue_ids) > 1:
            # The catalogue was replaced: what is near uses the numbers of the old one.
            self._cache.invalidate(kept)
            again = await self._reader.read_users(user_ids, history_limit, with_seen=True, deadline=deadline)
            self._catalogue_version = again.catalogue_version
            return again
        found = dict(zip(missing, split_rows(read.rows), strict=True)) if read else {}
        found |= {user_id: row.rows for user_id, row in kept.items()}
        return UsersRead(
            join_rows([found[user_id] for user_id in user_ids]), catalogue_ids.pop(), self._catalogue_version
        )

    def _near(self, user_id: str, history_limit: int, wanted: str, now_ms: int) -> NearRow | None:
        epoch, counter = _parse(wanted)
        row = self._cache.get(user_id, counter, now_ms)
        if row is None or (epoch and epoch != row.epoch) or row.history_limit != history_limit:
            return None
        return row

    async def _read(self, user_ids: Sequence[str], history_limit: int, deadline: float) -> UsersRead:
        reading = self._cache.begin()
        try:
            read = await self._reader.read_users(user_ids, history_limit, with_seen=True, deadline=deadline)
        except BaseException:
            self._cache.fail(reading)
            raise
        self._catalogue_version = read.catalogue_version
        entries = []
        for user_id, row in zip(user_ids, split_rows(read.rows), strict=True):
            if row.expires_at_ms is None:
                continue  # from a service that cannot tell when it expires
            epoch, counter = _parse(row.user_versions[0])
            near = NearRow(_copied(row), read.catalogue_id, epoch, history_limit)
            entries.append((user_id, Cached(near, counter, _size_bytes(near.rows), int(row.expires_at_ms[0]))))
        self._cache.end(reading, entries)
        return read


async def follow_changes(
    reader: FeatureReader, cache: NearCache[NearRow], catalogue_changed: Callable[[], object], rng: random.Random
) -> None:
    """Drives the cache by the feed of changes until it is cancelled; without a feed nothing is kept."""
    was_live = False
    while True:
        try:
            stream = reader.stream_changes()
            while True:
                async with asyncio.timeout(SILENT_FOR_S):
                    answer = await stream.read()
                if not isinstance(answer, feature_service_pb2.StreamChangesResponse):
                    break
                _apply(answer, cache, catalogue_changed)
                if answer.live and not was_live:
                    was_live = True
                    _log.info("change_feed_live")
        except (grpc.aio.AioRpcError, TimeoutError) as error:
            if was_live:
                _log.warning("change_feed_lost", reason=type(error).__name__)
        except Exception as error:  # noqa: BLE001  nobody else would notice that nothing is followed any more
            _log.error("change_feed_failed", exc_info=error)
        finally:
            stream.cancel()
            cache.reset(live=False)
        was_live = False
        await asyncio.sleep(_RETRY_S * rng.uniform(0.5, 1.5))


def _apply(
    answer: feature_service_pb2.StreamChangesResponse,
    cache: NearCache[NearRow],
    catalogue_changed: Callable[[], object],
) -> None:
    if answer.reset:
        cache.reset(live=answer.live)
    cache.invalidate(answer.user_ids)
    if answer.catalogue_changed:
        catalogue_changed()


def _parse(text: str) -> tuple[str, int]:
    """Returns epoch and counter; a text that is no version is newer than all that is near, so that the store judges."""
    if not text:
        return "", 0
    try:
        version = UserVersion.parse(text)
    except UserVersionError:
        return "", _NEVER
    return version.epoch, version.counter


def newer_version(one: str, other: str) -> str:
    """Returns the version that a state must include to include both; one that no state includes if they contradict."""
    if not one:
        return other
    (epoch, counter), (other_epoch, other_counter) = _parse(one), _parse(other)
    if _NEVER in (counter, other_counter) or epoch != other_epoch:
        return "contradictory"
    return one if counter >= other_counter else other


def _copied(row: UserRows) -> UserRows:
    """Returns a row that does not hold on to the arrays of the whole answer."""
    return replace(
        row,
        movie_numbers=row.movie_numbers.copy(),
        ratings=row.ratings.copy(),
        event_times_ms=row.event_times_ms.copy(),
        seen_numbers=np.zeros(0, np.int32) if row.seen_numbers is None else row.seen_numbers.copy(),
    )


def _size_bytes(row: UserRows) -> int:
    seen = 0 if row.seen_numbers is None else row.seen_numbers.nbytes
    return _ROW_BYTES + row.movie_numbers.nbytes + row.ratings.nbytes + row.event_times_ms.nbytes + seen
