"""Reads, changes and forgets users. Knows values and scripts; knows no message of the wire."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from feature_service.keys import UserKeys, event_log, log_position, user_keys, version_counter
from feature_service.lifetimes import Lifetimes
from feature_service.redis_link import Command, RedisLink
from feature_service.scripts import script
from feature_service.store import STORE_KEYS, StoreMarks, user_version
from feature_service.value_format import (
    CataloguePointer,
    Header,
    Profile,
    alive_at,
    pack_profile_field,
    packed_profile_of,
    unpack_header,
    unpack_profile,
    unpack_tombstone,
)


class StoredUser(NamedTuple):
    """What Redis holds of one user.

    Attributes:
        header: The fixed part of `state`; None if the user is not stored or has expired.
        state: Profile and history window as they lie in Redis; empty without a header.
        seen: The seen set as it lies in Redis; empty unless it was asked for.
        version: The user version.
        deleted_at_ms: 0 if never.
        expired: Whether the user outlived his time to live.
    """

    header: Header | None
    state: bytes
    seen: bytes
    version: str
    deleted_at_ms: int
    expired: bool = False

    @property
    def profile(self) -> Profile:
        """What is known of the person."""
        return unpack_profile(self.packed_profile)

    @property
    def packed_profile(self) -> bytes:
        """The same as it lies in Redis."""
        return b"" if self.header is None else packed_profile_of(self.state, self.header)


@dataclass(frozen=True, slots=True)
class StoredUsers:
    """Users as of one moment, and the catalogue that their movie numbers belong to."""

    rows: Sequence[StoredUser]
    pointer: CataloguePointer


@dataclass(frozen=True, slots=True)
class ProfileChange:
    """What to do with the four fields of a profile.

    Attributes:
        given: Fields to set.
        cleared: Names of fields to remove.
    """

    given: Profile
    cleared: frozenset[str]

    def arguments(self) -> list[bytes]:
        """Returns the four arguments of the script: empty keeps a field."""
        return [
            pack_profile_field(value) if value is not None or name in self.cleared else b""
            for name, value in zip(Profile._fields, self.given, strict=True)
        ]


class Users:
    """The users of the store."""

    def __init__(
        self,
        link: RedisLink,
        marks: StoreMarks,
        now_ms: Callable[[], int],
        *,
        log_entries: int,
        lifetimes: Lifetimes,
        max_ahead_ms: int,
    ) -> None:
        """Stores where users are.

        Args:
            link: Redis.
            marks: The store's marks.
            now_ms: Gives the time.
            log_entries: Entries that the event log of a partition keeps at most.
            lifetimes: How long data lives.
            max_ahead_ms: How far ahead of the clock events may be; imports may be further, which counts for nothing.
        """
        self._link = link
        self._marks = marks
        self._now_ms = now_ms
        self._log_entries = log_entries
        self._lifetimes = lifetimes
        self._max_ahead_ms = max_ahead_ms

    async def read(self, user_ids: Sequence[str], *, with_seen: bool = False) -> StoredUsers:
        """Returns users in the order of their ids, in one read."""
        places = [user_keys(user_id) for user_id in user_ids]
        # A user who is not stored has the version of his partition: whatever was written to him before counts less.
        partitions = list({place.partition: None for place in places})
        asked: list[bytes] = [*STORE_KEYS, *(version_counter(partition) for partition in partitions)]
        for place in places:
            asked += (place.state, place.tombstone, place.seen) if with_seen else (place.state, place.tombstone)
        values = await self._link.read(asked)
        epoch, pointer = await self._marks.resolve(values[:2])
        first = len(STORE_KEYS) + len(partitions)
        counters = dict(zip(partitions, map(_counter, values[len(STORE_KEYS) : first]), strict=True))
        stride = 3 if with_seen else 2
        now_ms = self._now_ms()
        rows = []
        for place, position in zip(places, range(first, len(values), stride), strict=True):
            seen = (values[position + 2] if with_seen else None) or b""
            state = values[position]
            if state is None:
                version = user_version(epoch, place.partition, counters[place.partition])
                rows.append(_absent(version, values[position + 1]))
            else:
                rows.append(_present(epoch, place.partition, state, seen, now_ms))
        return StoredUsers(rows, pointer)

    async def upsert(self, changes: Mapping[str, ProfileChange]) -> list[str]:
        """Creates or changes profiles; returns the users' versions in the order of `changes`."""
        places = {user_id: user_keys(user_id) for user_id in changes}
        commands: list[Command] = []
        groups = by_partition(places)
        for partition, user_ids in groups.items():
            touched = [version_counter(partition)]
            lifetimes = self._lifetimes
            arguments: list[bytes | int] = [self._now_ms(), lifetimes.profile_ms, lifetimes.visible_ms]
            for user_id in user_ids:
                touched += (places[user_id].state, places[user_id].tombstone, places[user_id].seen)
                arguments += changes[user_id].arguments()
            commands.append(("EVAL", script("upsert_profiles"), len(touched), *touched, *arguments))
        marks, *replies = await self._link.write([("MGET", *STORE_KEYS), *commands])
        epoch, _ = await self._marks.resolve(marks)
        versions = {}
        for (partition, user_ids), counters in zip(groups.items(), replies, strict=True):
            for user_id, counter in zip(user_ids, counters, strict=True):
                versions[user_id] = user_version(epoch, partition, counter)
        return [versions[user_id] for user_id in changes]

    async def delete(self, user_id: str) -> tuple[bool, str]:
        """Forgets a user; returns whether there was one, and the version of his absence."""
        place = user_keys(user_id)
        partition = place.partition
        logs = (log_position(partition), event_log(partition))
        touched = (version_counter(partition), *logs, place.state, place.tombstone, place.seen)
        now_ms = self._now_ms()
        arguments = (now_ms, self._log_entries, place.digest, now_ms + self._max_ahead_ms)
        evaluate = ("EVAL", script("delete_user"), len(touched), *touched, *arguments)
        marks, (existed, counter) = await self._link.write([("MGET", *STORE_KEYS), evaluate])
        epoch, _ = await self._marks.resolve(marks)
        return bool(existed), user_version(epoch, partition, counter)


def by_partition(places: Mapping[str, UserKeys]) -> dict[int, list[str]]:
    """Returns the users of each partition, in their order."""
    groups: dict[int, list[str]] = {}
    for user_id, place in places.items():
        groups.setdefault(place.partition, []).append(user_id)
    return groups


def _counter(value: bytes | None) -> int:
    return int(value or 0)


def _present(epoch: str, partition: int, state: bytes, seen: bytes, now_ms: int) -> StoredUser:
    header = unpack_header(state)
    version = user_version(epoch, partition, header.version)
    alive = alive_at(state, header, now_ms)
    if alive is None:
        return StoredUser(None, b"", b"", version, header.deleted_at_ms, expired=True)
    state, left = alive
    return StoredUser(left, state, seen if left.num_watched else b"", version, header.deleted_at_ms)


def _absent(version: str, tombstone: bytes | None) -> StoredUser:
    deleted_at_ms = 0 if tombstone is None else unpack_tombstone(tombstone).deleted_at_ms
    return StoredUser(None, b"", b"", version, deleted_at_ms)
