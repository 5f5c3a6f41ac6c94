"""Merges events and imported histories into what users have watched. Knows values and scripts; knows no wire."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

import numpy as np

from feature_service import keys
from feature_service.import_plan import ImportColumns, PreparedUser, prepare
from feature_service.keys import UserKeys, event_log, log_position, user_keys, version_counter
from feature_service.lifetimes import Lifetimes
from feature_service.redis_link import Command, RedisLink
from feature_service.scripts import script
from feature_service.store import STORE_KEYS, StoreMarks, user_version
from feature_service.users import by_partition
from feature_service.value_format import EVENT, event_hash
from service_runtime.errors import Unavailable

_NAN = float("nan")
# A user would have to be deleted this often while one import of his histories is under way.
_MAX_IMPORT_TRIES = 10


class Outcome(Enum):
    """What became of an event; the values are the letters of scripts/merge_events.lua."""

    APPLIED = "A"
    DUPLICATE = "D"
    STALE = "S"


@dataclass(frozen=True, slots=True)
class WatchEvent:
    """One user watched, and perhaps rated, one movie.

    Attributes:
        event_id: The caller's id of the event.
        user_id: External id.
        movie_number: Catalogue number.
        rating: Stars, finite; None if not rated.
        time_ms: Epoch milliseconds, from 0.
    """

    event_id: str
    user_id: str
    movie_number: int
    rating: float | None
    time_ms: int

    def pack(self) -> bytes:
        """Returns the event as the script reads it."""
        # Adding zero makes one of -0 and 0, which are the same stars and must be the same bytes.
        stars = _NAN if self.rating is None else self.rating + 0.0
        return EVENT.pack(self.movie_number, stars, self.time_ms, event_hash(self.event_id))


@dataclass(frozen=True, slots=True)
class _Merge:
    """What to merge for one user, as arguments of the script."""

    events: bytes = b""
    state: bytes = b""
    seen: bytes = b""
    assumed_deleted_at_ms: int | None = None

    def arguments(self) -> tuple[bytes, bytes, bytes, bytes | int]:
        assumed = b"" if self.assumed_deleted_at_ms is None else self.assumed_deleted_at_ms
        return self.events, self.state, self.seen, assumed


class Histories:
    """What users have watched."""

    def __init__(
        self,
        link: RedisLink,
        marks: StoreMarks,
        now_ms: Callable[[], int],
        *,
        window: int,
        log_entries: int,
        lifetimes: Lifetimes,
    ) -> None:
        """Stores where to write.

        Args:
            link: Redis.
            marks: The store's marks.
            now_ms: Gives the time.
            window: Newest movies to keep per user.
            log_entries: Entries that the event log of a partition keeps at most.
            lifetimes: How long data lives.
        """
        self._link = link
        self._marks = marks
        self._now_ms = now_ms
        self._log_entries = log_entries
        self._lifetimes = lifetimes
        self.window = window

    async def write(self, events: Sequence[WatchEvent]) -> list[tuple[Outcome, str]]:
        """Merges events; returns for each what became of it and the version that its user has afterwards."""
        positions: dict[str, list[int]] = {}
        for position, event in enumerate(events):
            positions.setdefault(event.user_id, []).append(position)
        merges = {user_id: _Merge(b"".join(events[at].pack() for at in own)) for user_id, own in positions.items()}
        epoch, replies = await self._merge(merges)
        results: list[tuple[Outcome, str]] = [(Outcome.STALE, "")] * len(events)
        for user_id, (partition, counter, letters) in replies.items():
            version = user_version(epoch, partition, counter)
            for position, letter in zip(positions[user_id], letters, strict=True):
                results[position] = (Outcome(letter), version)
        return results

    async def load(
        self, user_ids: Sequence[str], columns: ImportColumns, *, not_for_evaluation: bool
    ) -> tuple[int, list[str]]:
        """Merges imported histories; returns how many entries changed something and the users' versions.

        Args:
            user_ids: The users, all different. [B]
            columns: Their entries.
            not_for_evaluation: Marks the store first.
        """
        if not_for_evaluation:
            await self._link.command("SET", keys.NOT_FOR_EVALUATION, "1")
        deleted_at_ms = np.zeros(len(user_ids), np.int64)
        prepared = dict(zip(user_ids, prepare(columns, self.window, deleted_at_ms), strict=True))
        assumed = dict.fromkeys(user_ids, 0)
        versions: dict[str, str] = {}
        num_applied = 0
        for _ in range(_MAX_IMPORT_TRIES):
            epoch, replies = await self._merge({user: _import(prepared[user], assumed[user]) for user in assumed})
            for user_id, (partition, counter, letters) in replies.items():
                if counter < 0:
                    assumed[user_id] = int(letters)
                    continue
                versions[user_id] = user_version(epoch, partition, counter)
                num_applied += letters.count(Outcome.APPLIED.value)
                del assumed[user_id]
            if not assumed:
                return num_applied, [versions[user_id] for user_id in user_ids]
            # These users were deleted once: what they watched up to then stays forgotten.
            deleted_at_ms = np.array([assumed.get(user_id, 0) for user_id in user_ids], np.int64)
            prepared = dict(zip(user_ids, prepare(columns, self.window, deleted_at_ms), strict=True))
        raise Unavailable("the users are being deleted meanwhile", reason="USERS_BUSY", retry_after_s=1.0)

    async def _merge(self, merges: dict[str, _Merge]) -> tuple[str, dict[str, tuple[int, int, str]]]:
        """Runs the script once per partition, in one round trip.

        Returns:
            The store's epoch, and per user his partition, version counter and letters.
        """
        places = {user_id: user_keys(user_id) for user_id in merges}
        groups = by_partition(places)
        scripts = [self._command(partition, user_ids, places, merges) for partition, user_ids in groups.items()]
        marks, *replies = await self._link.write([("MGET", *STORE_KEYS), *scripts])
        epoch, _ = await self._marks.resolve(marks)
        found: dict[str, tuple[int, int, str]] = {}
        for (partition, user_ids), reply in zip(groups.items(), replies, strict=True):
            for user_id, counter, letters in zip(user_ids, reply[::2], reply[1::2], strict=True):
                found[user_id] = (partition, counter, letters.decode())
        return epoch, found

    def _command(
        self, partition: int, user_ids: list[str], places: dict[str, UserKeys], merges: dict[str, _Merge]
    ) -> Command:
        touched = [version_counter(partition), log_position(partition), event_log(partition)]
        lifetimes = self._lifetimes
        arguments: list[Any] = [self.window, self._log_entries, self._now_ms()]
        arguments += (lifetimes.history_ms, lifetimes.visible_ms)
        for user_id in user_ids:
            touched += (places[user_id].state, places[user_id].tombstone, places[user_id].seen)
            arguments += merges[user_id].arguments()
        return ("EVAL", script("merge_events"), len(touched), *touched, *arguments)


def _import(prepared: PreparedUser, assumed_deleted_at_ms: int) -> _Merge:
    return _Merge(state=prepared.state, seen=prepared.seen, assumed_deleted_at_ms=assumed_deleted_at_ms)
