"""Reads, bounds and holds back the event log. Knows streams and positions; knows no message of the wire.

Each partition has a log of its own, a Redis stream whose entry ids are 1, 2, 3 ...: so a reader can tell that something
was trimmed before he read it. The scripts append in the same step in which they change a user.
"""

import base64
import binascii
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from feature_service import keys
from feature_service.keys import NUM_PARTITIONS, event_log, log_position
from feature_service.redis_link import Command, RedisLink
from feature_service.store import STORE_KEYS, StoreMarks
from feature_service.value_format import CataloguePointer, LogEntry, pack_positions, unpack_log_entry, unpack_positions
from service_runtime.errors import FailedPrecondition

_TRIMMED_AT_ONCE = 1000
_PARTITIONS = range(NUM_PARTITIONS)
MAX_EXPORTS_MEASURED = 20
"""Their names are callers'; more of them than anybody runs would be more than an operator should have to look at."""

Positions = tuple[int, ...]
"""Of each partition, the position of the newest entry that was read; 0 before the first."""

START: Positions = (0,) * NUM_PARTITIONS


class PositionError(ValueError):
    """A text is no position of an event log."""


@dataclass(frozen=True, slots=True)
class LogPage:
    """A part of the log.

    Attributes:
        entries: Those of one partition in the order in which they were written; partitions one after the other.
        positions: Up to where it goes.
        gap: Whether entries were trimmed that belong between the positions asked for and these.
        num_behind: Entries that were there and are not in the page.
        epoch: Of the store.
        pointer: The catalogue that the movie numbers belong to.
    """

    entries: Sequence[LogEntry]
    positions: Positions
    gap: bool
    num_behind: int
    epoch: str
    pointer: CataloguePointer


@dataclass(frozen=True, slots=True)
class ExportMeasure:
    """How far behind a registered export is.

    Attributes:
        name: Whose.
        num_behind: Entries that he has not taken.
        waits_since_ms: When the oldest of them was written; None if there is none.
    """

    name: str
    num_behind: int
    waits_since_ms: int | None


@dataclass(frozen=True, slots=True)
class LogMeasure:
    """How large the log is.

    Attributes:
        num_entries: Entries that are there.
        num_written: Entries ever written.
        oldest_ms: When the oldest was written; None if there is none.
        num_exports: Registered exports.
        exports: The first `MAX_EXPORTS_MEASURED` of them by name.
    """

    num_entries: int = 0
    num_written: int = 0
    oldest_ms: int | None = None
    num_exports: int = 0
    exports: Sequence[ExportMeasure] = ()


class EventLog:
    """The logs of all partitions."""

    def __init__(self, link: RedisLink, marks: StoreMarks, now_ms: Callable[[], int], max_age_ms: int) -> None:
        """Stores where the logs are and how old their entries become."""
        self._link = link
        self._marks = marks
        self._now_ms = now_ms
        self._max_age_ms = max_age_ms

    async def read(self, token: str, limit: int) -> LogPage:
        """Returns what was written after a position, as far as about `limit` entries go.

        Args:
            token: Of `position_token`; empty for the beginning.
            limit: Entries at most, at least 64; partitions share them evenly.

        Raises:
            PositionError: The token is none.
            FailedPrecondition: It is of another store, or of a later state of this one.
        """
        per_partition = limit // NUM_PARTITIONS
        asked = _parse(token)
        since = START if asked is None else asked[1]
        # Each counter before its range: what it counts was there when the range is read, or was trimmed.
        commands: list[Command] = [("MGET", *STORE_KEYS)]
        for partition in _PARTITIONS:
            commands.append(("GET", log_position(partition)))
            commands.append(_range(partition, since[partition] + 1, per_partition))
        marks, *answers = await self._link.commands(commands)
        epoch, pointer = await self._marks.resolve(marks)
        newest, replies = [int(value or 0) for value in answers[::2]], answers[1::2]
        if asked is not None and asked[0] != epoch:
            raise FailedPrecondition("the position is of another store; take a new snapshot", reason="FOREIGN_EPOCH")
        if any(have > there for have, there in zip(since, newest, strict=True)):
            raise FailedPrecondition("the position is later than the log; take a new snapshot", reason="POSITION_AHEAD")
        entries: list[LogEntry] = []
        positions = list(since)
        gap = False
        for partition, rows in enumerate(replies):
            first = _number(rows[0][0]) if rows else newest[partition] + 1
            gap |= first > since[partition] + 1
            positions[partition] = _number(rows[-1][0]) if rows else newest[partition]
            entries += (unpack_log_entry(fields) for _, fields in rows)
        num_behind = sum(max(0, there - have) for have, there in zip(positions, newest, strict=True))
        return LogPage(entries, tuple(positions), gap, num_behind, epoch, pointer)

    async def end(self) -> str:
        """Returns the token of the newest entry."""
        marks = await self._link.read([*STORE_KEYS, *(log_position(partition) for partition in _PARTITIONS)])
        epoch, _ = await self._marks.resolve(marks[:2])
        return position_token(epoch, tuple(int(value or 0) for value in marks[2:]))

    async def hold(self, name: str, token: str) -> None:
        """Keeps what comes after a position from being trimmed by age, until the next call of the same name.

        Args:
            name: Who exports.
            token: Up to where he has the events; empty lets go.

        Raises:
            PositionError: The token is none.
            FailedPrecondition: It is of another store.
        """
        asked = _parse(token)
        if asked is None:
            await self._link.command("HDEL", keys.EXPORTS, name.encode())
            return
        epoch, _ = await self._marks.ensure()
        if asked[0] != epoch:
            raise FailedPrecondition("the position is of another store", reason="FOREIGN_EPOCH")
        await self._link.command("HSET", keys.EXPORTS, name.encode(), pack_positions(asked[1]))

    async def measure(self) -> LogMeasure:
        """Returns how large the log is and how far its registered exports are behind."""
        exports = {name.decode(): unpack_positions(value) for name, value in (await self._exports()).items()}
        newest, oldest = await self._heads((0,) * NUM_PARTITIONS)
        lengths = [last - first[0] + 1 if first is not None else 0 for last, first in zip(newest, oldest, strict=True)]
        measured = []
        for name in sorted(exports)[:MAX_EXPORTS_MEASURED]:
            ends, unread = await self._heads(exports[name])
            num_behind = sum(max(0, end - have) for end, have in zip(ends, exports[name], strict=True))
            measured.append(ExportMeasure(name, num_behind, _earliest(unread)))
        return LogMeasure(sum(lengths), sum(newest), _earliest(oldest), len(exports), measured)

    async def _heads(self, since: Positions) -> tuple[list[int], list[tuple[int, int] | None]]:
        """Returns of each partition its newest position, and position and time of the first entry after a position."""
        commands: list[Command] = []
        for partition in _PARTITIONS:
            # In this order, as in `read`: what is found is counted.
            commands += [_range(partition, since[partition] + 1, 1), ("GET", log_position(partition))]
        answers = await self._link.commands(commands)
        firsts = [(_number(rows[0][0]), int(rows[0][1][b"t"])) if rows else None for rows in answers[::2]]
        return [int(value or 0) for value in answers[1::2]], firsts

    async def trim(self) -> int:
        """Drops entries that are too old and that nobody holds; returns how many."""
        held = [unpack_positions(value) for value in (await self._exports()).values()]
        oldest_ms = self._now_ms() - self._max_age_ms
        num_dropped = 0
        for partition in _PARTITIONS:
            up_to = min((positions[partition] for positions in held), default=None)
            num_dropped += await self._trim(partition, up_to, oldest_ms)
        return num_dropped

    async def _trim(self, partition: int, up_to: int | None, oldest_ms: int) -> int:
        num_dropped = 0
        while True:
            (rows,) = await self._link.commands([_range(partition, 0, _TRIMMED_AT_ONCE)])
            old = 0
            for position, fields in rows:
                if (up_to is not None and _number(position) > up_to) or int(fields[b"t"]) >= oldest_ms:
                    break
                old += 1
            if old:
                last = _number(rows[old - 1][0])
                num_dropped += int(
                    await self._link.command("XTRIM", event_log(partition), "MINID", "=", f"{last + 1}-0")
                )
            if old < _TRIMMED_AT_ONCE:
                return num_dropped

    async def _exports(self) -> dict[bytes, bytes]:
        found: dict[bytes, bytes] = await self._link.command("HGETALL", keys.EXPORTS)
        return found


def _earliest(entries: Sequence[tuple[int, int] | None]) -> int | None:
    return min((written_ms for _, written_ms in filter(None, entries)), default=None)


def position_token(epoch: str, positions: Positions) -> str:
    """Returns the text that stands for positions outside the service."""
    return f"{epoch}.{base64.urlsafe_b64encode(pack_positions(positions)).decode()}"


def _parse(token: str) -> tuple[str, Positions] | None:
    if not token:
        return None
    epoch, dot, encoded = token.partition(".")
    try:
        packed = base64.b64decode(encoded.encode(), altchars=b"-_", validate=True)
        if not dot or not epoch:
            raise PositionError
        return epoch, unpack_positions(packed)
    except (binascii.Error, ValueError) as error:
        raise PositionError("is no position that ExportEvents gave") from error


def _range(partition: int, first: int, count: int) -> Command:
    return ("XRANGE", event_log(partition), f"{first}-0", "+", "COUNT", count)


def _number(stream_id: Any) -> int:
    return int(stream_id.partition(b"-")[0])
