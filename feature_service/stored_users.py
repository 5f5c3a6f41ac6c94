"""What Redis holds of many users, taken apart, without what has expired.

Knows values; knows no Redis and no message. Headers are taken apart user by user: it costs a microsecond each, while
the thirty steps over arrays that say the same cost fifty however few the users are, and calls are mostly for few.
"""

import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from feature_service.store import version_prefixes
from feature_service.value_format import (
    ENTRY,
    HEADER,
    STATE_FORMAT,
    CataloguePointer,
    DamagedValueError,
    Header,
    Profile,
    in_newest_format,
    unpack_profile,
)

_Fields = tuple[int, ...]

FOUND, NOT_FOUND, EXPIRED = 1, 2, 3
"""The numbers of UserStatus in the contract, so that bytes of them are what the wire carries."""

# The year 10000, which no timestamp of the contract reaches.
_END_OF_TIME_MS = 253_402_300_800_000
# Places of the fields in `Header`.
_PROFILE_BYTES, _HISTORY_ENDS, _PROFILE_ENDS, _NUM_WATCHED, _NUM_ENTRIES, _NUM_OLDER = 1, 5, 6, 7, 8, 9
_PROFILE, _HISTORY = frozenset({_PROFILE_BYTES}), frozenset({_NUM_WATCHED, _NUM_ENTRIES, _NUM_OLDER})
_NOBODY = HEADER.pack(STATE_FORMAT, *[0] * (len(Header._fields) - 1))


class Absence(NamedTuple):
    """What is known of a user who is not stored.

    Attributes:
        counter: His version: that of his partition, for whatever was written to him before counts less.
        deleted_at_ms: 0 if never.
    """

    counter: int
    deleted_at_ms: int


class StoredUser(NamedTuple):
    """One of the users, see `StoredUsers`.

    Attributes:
        header: None if the user is not stored or all of him has expired.
        packed_profile: His profile as it lies in Redis; empty if there is none.
        entries: His history window, newest first, as bytes of `ENTRY`.
        seen: His seen set as it lies in Redis; empty unless it was asked for.
        version: The user version.
        deleted_at_ms: 0 if never.
        expires_at_ms: When the first part of him expires; 0 if none does.
        status: FOUND, NOT_FOUND, or EXPIRED if all that was stored has.
        profile_status: The same of the profile alone.
        history_status: The same of the history alone.
    """

    header: Header | None
    packed_profile: bytes
    entries: bytes
    seen: bytes
    version: str
    deleted_at_ms: int
    expires_at_ms: int
    status: int
    profile_status: int
    history_status: int

    @property
    def profile(self) -> Profile:
        """What is known of the person."""
        return unpack_profile(self.packed_profile)


@dataclass(frozen=True, slots=True)
class StoredUsers:
    """B users, each as of one moment and without what has expired, and a catalogue that knows all their movies.

    Attributes:
        pointer: Says which catalogue.
        versions: User versions. [B]
        states: As they lie in Redis, in the newest format; without content where absent. [B]
        starts: Where the entries of a state begin. [B]
        headers: The fields of `Header`. [B]
        seen: Seen sets as they lie in Redis; empty unless they were asked for. [B]
        deleted_at_ms: 0 if never. [B]
        expires_at_ms: When the first part of a user expires, 0 if none does. [B]
        statuses: As of `StoredUser`. [B]
        profile_statuses: As of `StoredUser`. [B]
        history_statuses: As of `StoredUser`. [B]
    """

    pointer: CataloguePointer
    versions: Sequence[str]
    states: Sequence[bytes]
    starts: Sequence[int]
    headers: Sequence[_Fields]
    seen: Sequence[bytes]
    deleted_at_ms: Sequence[int]
    expires_at_ms: Sequence[int]
    statuses: Sequence[int]
    profile_statuses: Sequence[int]
    history_statuses: Sequence[int]

    def packed_profiles(self) -> list[bytes]:
        """Returns profiles as they lie in Redis, no bytes where there is none. [B]."""
        begin = HEADER.size
        rows = zip(self.states, self.headers, strict=True)
        return [state[begin : begin + header[_PROFILE_BYTES]] for state, header in rows]

    def histories(self, limit: int) -> tuple[list[bytes], list[int]]:
        """Returns at most `limit` entries of each user, newest first, as bytes of `ENTRY`, and how many. [B], [B]."""
        size = ENTRY.itemsize
        lengths = [header[_NUM_ENTRIES] for header in self.headers]
        if max(lengths) > limit:
            lengths = [min(length, limit) for length in lengths]
        rows = zip(self.states, self.starts, lengths, strict=True)
        return [state[begin : begin + size * length] for state, begin, length in rows], lengths

    def nums_watched(self) -> list[int]:
        """Returns how many movies were ever watched. [B]."""
        return [header[_NUM_WATCHED] for header in self.headers]

    def rows(self) -> Iterator[StoredUser]:
        """Yields the users one by one."""
        columns = zip(
            self.headers,
            self.packed_profiles(),
            self.histories(max(header[_NUM_ENTRIES] for header in self.headers))[0],
            self.seen,
            self.versions,
            self.deleted_at_ms,
            self.expires_at_ms,
            self.statuses,
            self.profile_statuses,
            self.history_statuses,
            strict=True,
        )
        for fields, *rest in columns:
            row = StoredUser(Header._make(fields), *rest)
            yield row if row.status == FOUND else row._replace(header=None)


def take_apart(
    pointer: CataloguePointer,
    epoch: str,
    partitions: Sequence[int],
    found: Sequence[bytes | None],
    found_seen: Sequence[bytes | None],
    absent: Mapping[int, Absence],
    now_ms: int,
) -> StoredUsers:
    """Returns B users.

    Args:
        pointer: The catalogue.
        epoch: The data set that user versions name.
        partitions: Of the users. [B]
        found: States as they lie in Redis, None where there is none. [B]
        found_seen: Seen sets likewise. [B]
        absent: What is known of those without a state, by their place.
        now_ms: What expires until now has expired.

    Raises:
        FormatError: A newer build wrote one of them.
        DamagedValueError: One of them is damaged.
    """
    states = [state or _NOBODY for state in found]
    if {state[0] for state in states} != {STATE_FORMAT}:
        states = [in_newest_format(state) for state in states]
    headers = _whole_headers(states)
    _, sizes, _, counters, deleted_at_ms, history_ends, profile_ends, nums_watched, _, _ = _columns(headers)
    starts = [HEADER.size + size for size in sizes]
    seen = [each or b"" for each in found_seen]
    statuses = [FOUND] * len(states)
    profile_statuses = [FOUND if size else NOT_FOUND for size in sizes]
    history_statuses = [FOUND if number else NOT_FOUND for number in nums_watched]
    expires_at_ms: Sequence[int] = [0] * len(states)
    if any(profile_ends) or any(history_ends):
        for at, (profile_end, history_end) in enumerate(zip(profile_ends, history_ends, strict=True)):
            if 0 < profile_end <= now_ms:
                profile_statuses[at] = EXPIRED if sizes[at] else NOT_FOUND
                headers[at] = _without(headers[at], _PROFILE)
                statuses[at] = EXPIRED
            if 0 < history_end <= now_ms:
                history_statuses[at] = EXPIRED if nums_watched[at] else NOT_FOUND
                headers[at] = _without(headers[at], _HISTORY)
                seen[at] = b""
                statuses[at] = EXPIRED
        # Who has something left is found all the same.
        statuses = [
            FOUND if FOUND in parts else status
            for status, *parts in zip(statuses, profile_statuses, history_statuses, strict=True)
        ]
        expires_at_ms = [
            _expires_at_ms(header) if status == FOUND else 0 for header, status in zip(headers, statuses, strict=True)
        ]
    deleted = list(deleted_at_ms)
    versions_of = list(counters)
    for at, absence in absent.items():
        statuses[at], seen[at] = NOT_FOUND, b""
        versions_of[at], deleted[at] = absence
    prefixes = version_prefixes(epoch)
    versions = [prefixes[partition] + str(counter) for partition, counter in zip(partitions, versions_of, strict=True)]
    return StoredUsers(
        pointer,
        versions,
        states,
        starts,
        headers,
        seen,
        deleted,
        expires_at_ms,
        statuses,
        profile_statuses,
        history_statuses,
    )


def _whole_headers(states: Sequence[bytes]) -> list[_Fields]:
    """Returns the fields of headers. Raises `DamagedValueError` if a state is not as long as its header says."""
    try:
        headers = list(map(HEADER.unpack_from, states))
    except struct.error:
        raise DamagedValueError("a user's state in Redis is damaged") from None
    _, sizes, _, _, deleted_at_ms, _, _, _, nums_entries, nums_older = _columns(headers)
    rows = zip(sizes, nums_entries, nums_older, strict=True)
    wholes = [HEADER.size + size + ENTRY.itemsize * (entries + older) for size, entries, older in rows]
    if wholes != list(map(len, states)) or min(deleted_at_ms) < 0 or max(deleted_at_ms) >= _END_OF_TIME_MS:
        raise DamagedValueError("a user's state in Redis is damaged")
    return headers


def _columns(headers: Sequence[_Fields]) -> Iterator[_Fields]:
    """Returns each field of all headers, in the order of `Header`."""
    return zip(*headers, strict=True)


def _without(header: _Fields, fields: frozenset[int]) -> _Fields:
    return tuple(0 if at in fields else value for at, value in enumerate(header))


def _expires_at_ms(header: _Fields) -> int:
    """Returns when the first part of a user expires, 0 if none does."""
    history_ends, profile_ends = header[_HISTORY_ENDS], header[_PROFILE_ENDS]
    # Who has neither lives as long as his profile.
    if not header[_NUM_WATCHED]:
        return profile_ends
    if not header[_PROFILE_BYTES]:
        return history_ends
    return min(history_ends, profile_ends) or max(history_ends, profile_ends)
