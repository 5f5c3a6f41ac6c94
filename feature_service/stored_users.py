"""What Redis holds of many users, taken apart in a few steps for all of them, without what has expired.

Knows values; knows no Redis and no message. A step over arrays costs some microseconds whether it is for one user or
for 1000; for each user alone bytes are cut and no more.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from feature_service.store import version_prefixes
from feature_service.value_format import (
    ENTRY,
    HEADER,
    HEADERS,
    STATE_FORMAT,
    CataloguePointer,
    DamagedValueError,
    Header,
    Profile,
    in_newest_format,
    unpack_profile,
)

FOUND, NOT_FOUND, EXPIRED = 1, 2, 3
"""The numbers of UserStatus in the contract, so that an array of them is what the wire carries."""

# The year 10000, which no timestamp of the contract reaches.
_END_OF_TIME_MS = 253_402_300_800_000
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
    """B users, each as of one moment, and a catalogue that knows all their movies.

    Attributes:
        pointer: Says which catalogue.
        versions: User versions. [B]
        states: As they lie in Redis, in the newest format; without content where absent. [B]
        headers: Of the states, without the parts that have expired. HEADERS [B]
        starts: Where the entries of a state begin. int64 [B]
        seen: Seen sets as they lie in Redis; empty unless they were asked for. [B]
        deleted_at_ms: 0 if never. int64 [B]
        statuses: As of `StoredUser`. uint8 [B]
        profile_statuses: As of `StoredUser`. uint8 [B]
        history_statuses: As of `StoredUser`. uint8 [B]
    """

    pointer: CataloguePointer
    versions: Sequence[str]
    states: Sequence[bytes]
    headers: NDArray[Any]
    starts: NDArray[np.int64]
    seen: Sequence[bytes]
    deleted_at_ms: NDArray[np.int64]
    statuses: NDArray[np.uint8]
    profile_statuses: NDArray[np.uint8]
    history_statuses: NDArray[np.uint8]

    def packed_profiles(self) -> list[bytes]:
        """Returns profiles as they lie in Redis, no bytes where there is none. [B]."""
        ends = (HEADER.size + self.headers["profile_bytes"].astype(np.int64)).tolist()
        return [state[HEADER.size : end] for state, end in zip(self.states, ends, strict=True)]

    def histories(self, limit: int) -> tuple[list[bytes], NDArray[np.int64]]:
        """Returns at most `limit` entries of each user, newest first, as bytes of `ENTRY`, and how many. [B], [B]."""
        lengths = np.minimum(self.headers["num_entries"], limit).astype(np.int64)
        ends = self.starts + lengths * ENTRY.itemsize
        bounds = zip(self.states, self.starts.tolist(), ends.tolist(), strict=True)
        return [state[begin:end] for state, begin, end in bounds], lengths

    def expires_at_ms(self) -> NDArray[np.int64]:
        """Returns when the first part of each user expires, 0 if none does. int64 [B]."""
        headers = self.headers
        has_history = headers["num_watched"] > 0
        # Who has neither lives as long as his profile.
        has_profile = (headers["profile_bytes"] > 0) | ~has_history
        history = np.where(has_history, headers["history_expires_at_ms"], 0)
        profile = np.where(has_profile, headers["profile_expires_at_ms"], 0)
        first = np.where((history > 0) & (profile > 0), np.minimum(history, profile), np.maximum(history, profile))
        return np.where(self.statuses == FOUND, first, 0)

    def rows(self) -> Iterator[StoredUser]:
        """Yields the users one by one."""
        columns = zip(
            self.headers.tolist(),
            self.packed_profiles(),
            self.histories(len(self.states) and int(self.headers["num_entries"].max()))[0],
            self.seen,
            self.versions,
            self.deleted_at_ms.tolist(),
            self.expires_at_ms().tolist(),
            self.statuses.tolist(),
            self.profile_statuses.tolist(),
            self.history_statuses.tolist(),
            strict=True,
        )
        for header, *rest in columns:
            row = StoredUser(Header._make(header), *rest)
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
    sizes = np.fromiter(map(len, states), np.int64, len(states))
    # One that is too short would move the bytes of the users after it.
    if (sizes < HEADER.size).any():
        raise DamagedValueError("a user's state in Redis is damaged")
    headers = np.frombuffer(b"".join([state[: HEADER.size] for state in states]), HEADERS)
    _require_whole(headers, sizes)
    counters, deleted_at_ms = headers["version"].tolist(), headers["deleted_at_ms"].copy()
    starts = HEADER.size + headers["profile_bytes"].astype(np.int64)
    has_profile, has_history = headers["profile_bytes"] > 0, headers["num_watched"] > 0
    profile_over = _over(headers["profile_expires_at_ms"], now_ms)
    history_over = _over(headers["history_expires_at_ms"], now_ms)
    statuses = np.full(len(states), FOUND, np.uint8)
    seen: list[bytes] = [each or b"" for each in found_seen]
    if profile_over.any() or history_over.any():
        is_left = (has_profile & ~profile_over) | (has_history & ~history_over)
        statuses[(profile_over | history_over) & ~is_left] = EXPIRED
        headers = headers.copy()
        headers["profile_bytes"][profile_over] = 0
        for name in ("num_watched", "num_entries", "num_older"):
            headers[name][history_over] = 0
        for at in np.flatnonzero(history_over).tolist():
            seen[at] = b""
    for at, absence in absent.items():
        statuses[at] = NOT_FOUND
        counters[at], deleted_at_ms[at] = absence
        seen[at] = b""
    prefixes = version_prefixes(epoch)
    versions = [prefixes[partition] + str(counter) for partition, counter in zip(partitions, counters, strict=True)]
    return StoredUsers(
        pointer,
        versions,
        states,
        headers,
        starts,
        seen,
        deleted_at_ms,
        statuses,
        _status_of_part(has_profile, profile_over),
        _status_of_part(has_history, history_over),
    )


def _require_whole(headers: NDArray[Any], sizes: NDArray[np.int64]) -> None:
    """Raises `DamagedValueError` unless states are as long as their headers say, and their times are times."""
    entries = headers["num_entries"].astype(np.int64) + headers["num_older"]
    whole = sizes == HEADER.size + headers["profile_bytes"] + ENTRY.itemsize * entries
    deleted_at_ms = headers["deleted_at_ms"]
    if not (whole & (deleted_at_ms >= 0) & (deleted_at_ms < _END_OF_TIME_MS)).all():
        raise DamagedValueError("a user's state in Redis is damaged")


def _over(expires_at_ms: NDArray[np.int64], now_ms: int) -> NDArray[np.bool_]:
    return (expires_at_ms > 0) & (expires_at_ms <= now_ms)


def _status_of_part(is_stored: NDArray[np.bool_], is_over: NDArray[np.bool_]) -> NDArray[np.uint8]:
    return np.where(is_stored, np.where(is_over, np.uint8(EXPIRED), np.uint8(FOUND)), np.uint8(NOT_FOUND))
