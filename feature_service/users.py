"""Reads, changes and forgets users. Knows values and scripts; knows no message of the wire."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from feature_service.keys import UserKeys, event_log, log_position, read_keys, user_keys, version_counter
from feature_service.lifetimes import Lifetimes
from feature_service.redis_link import Command, RedisLink
from feature_service.scripts import script
from feature_service.store import STORE_KEYS, StoreMarks, user_version
from feature_service.stored_users import Absence, StoredUsers, take_apart
from feature_service.value_format import Profile, pack_profile_field, unpack_tombstone


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
            max_ahead_ms: How far ahead of the clock events may be.
        """
        self._link = link
        self._marks = marks
        self._now_ms = now_ms
        self._log_entries = log_entries
        self._lifetimes = lifetimes
        self._max_ahead_ms = max_ahead_ms

    async def read(self, user_ids: Sequence[str], *, with_seen: bool = False) -> StoredUsers:
        """Returns users in the order of their ids: in one read if all are stored, with a second one for the others."""
        partitions, states, seen = read_keys(user_ids)
        asked = [*STORE_KEYS, *states, *(seen if with_seen else ())]
        first = len(STORE_KEYS)
        while True:
            values = await self._link.read(asked)
            epoch, pointer = await self._marks.resolve(values[:first])
            found = values[first : first + len(states)]
            found_seen: list[bytes | None] = values[first + len(states) :] if with_seen else [None] * len(states)
            places = [at for at, state in enumerate(found) if state is None]
            if not places:
                return take_apart(pointer, epoch, partitions, found, found_seen, {}, self._now_ms())
            # Asked for again, because some may have been stored meanwhile: state and version are of one moment.
            missing = [*STORE_KEYS]
            for at in places:
                tombstone = user_keys(user_ids[at]).tombstone
                missing += (states[at], seen[at], version_counter(partitions[at]), tombstone)
            values = await self._link.read(missing)
            later_epoch, later = await self._marks.resolve(values[:first])
            if (later_epoch, later.catalogue_id) == (epoch, pointer.catalogue_id):
                break  # otherwise Redis was emptied between the two
        absent = {}
        for at, position in zip(places, range(first, len(values), 4), strict=True):
            found[at], seen_now, counter, tombstone_now = values[position : position + 4]
            if found[at] is None:
                absent[at] = _absence(counter, tombstone_now)
            elif with_seen:
                found_seen[at] = seen_now
        return take_apart(later, epoch, partitions, found, found_seen, absent, self._now_ms())

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


def _absence(counter: bytes | None, tombstone: bytes | None) -> Absence:
    return Absence(int(counter or 0), 0 if tombstone is None else unpack_tombstone(tombstone).deleted_at_ms)
