"""Lays users out for callers: typed fields, or arrays for a whole batch. Knows values and messages; knows no Redis."""

import struct
from collections.abc import Iterator, Sequence
from functools import lru_cache

import numpy as np
from marquee.v1 import feature_service_pb2, user_pb2
from numpy.typing import NDArray

from feature_service.catalogue import Mirror
from feature_service.seen_sets import unpack_seen_sets
from feature_service.users import StoredUser
from feature_service.value_format import ENTRY, entries_of, unpack_profile
from service_runtime.server import MAX_MESSAGE_BYTES

# Four bytes each: 2.8 MB of an answer, which leaves room for 250 histories of the usual window, 0.8 MB.
MAX_SEEN_NUMBERS = 700_000
# A number is up to five bytes packed and some fifty while it is unpacked: so 10 MB at most, whatever is asked for.
_SEEN_BYTES_AT_ONCE = 200_000
# What the answer holds beside its columns, and the framing of all its fields.
_RESERVE_BYTES = 4096


def add_full_users(
    reply: feature_service_pb2.BatchGetUsersResponse,
    user_ids: Sequence[str],
    rows: Sequence[StoredUser],
    mirror: Mirror,
    history_limit: int,
) -> None:
    """Adds users with typed fields to an answer.

    They are made where they will stay: what is made elsewhere and added costs a copy, and the memory of both.
    """
    for user_id, row in zip(user_ids, rows, strict=True):
        _fill_user(reply.users.add(), user_id, row, mirror, history_limit)


def user_columns(rows: Sequence[StoredUser], history_limit: int, *, include_seen: bool) -> user_pb2.UserColumns:
    """Returns users as arrays."""
    headers = [row.header for row in rows]
    histories = [
        b"" if header is None else entries_of(row.state, header, history_limit)
        for row, header in zip(rows, headers, strict=True)
    ]
    entries = np.frombuffer(b"".join(histories), ENTRY)
    columns = user_pb2.UserColumns(
        statuses=[_status(row) for row in rows],
        profiles=[_profile_message(row.packed_profile) for row in rows],
        user_versions=[row.version for row in rows],
        lengths=_packed("I", [len(history) // ENTRY.itemsize for history in histories]),
        movie_numbers=entries["number"].tobytes(),
        ratings=entries["rating"].tobytes(),
        event_times_ms=entries["time_ms"].tobytes(),
        num_watched=_packed("I", [header.num_watched if header else 0 for header in headers]),
        deleted_at_ms=_packed("q", [row.deleted_at_ms for row in rows]),
        expires_at_ms=_packed("q", [header.expires_at_ms if header else 0 for header in headers]),
    )
    if include_seen:
        _add_seen(columns, rows)
    return columns


def _add_seen(columns: user_pb2.UserColumns, rows: Sequence[StoredUser]) -> None:
    """Adds seen sets in the order of the rows while there is room; the others are marked as omitted."""
    room = (MAX_MESSAGE_BYTES - _RESERVE_BYTES - columns.ByteSize() - 5 * len(rows)) // 4
    room = min(room, MAX_SEEN_NUMBERS)
    parts: list[NDArray[np.uint32]] = []
    lengths: list[int] = []
    omitted = bytearray(len(rows))
    for begin, end in _portions([len(row.seen) for row in rows]):
        numbers, own = unpack_seen_sets([row.seen for row in rows[begin:end]])
        found = own.tolist()
        if sum(found) <= room:
            room -= sum(found)
        else:
            for position, length in enumerate(found):
                omitted[begin + position] = length > room
                room -= 0 if length > room else length
            numbers = numbers[~np.repeat(np.frombuffer(omitted[begin:end], np.bool_), own)]
            found = [0 if omitted[begin + position] else length for position, length in enumerate(found)]
        parts.append(numbers)
        lengths += found
    columns.seen_lengths = _packed("I", lengths)
    columns.seen_numbers = b"".join([part.astype("<u4", copy=False).tobytes() for part in parts])
    columns.seen_omitted = bytes(omitted)


def _packed(kind: str, values: Sequence[int]) -> bytes:
    """Returns numbers as the wire has them; for some hundred of them it is quicker than numpy."""
    return struct.pack(f"<{len(values)}{kind}", *values)


def _portions(sizes: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Yields ranges of rows whose seen sets are unpacked together."""
    begin, num_bytes = 0, 0
    for position, size in enumerate(sizes):
        num_bytes += size
        if num_bytes > _SEEN_BYTES_AT_ONCE:
            yield begin, position + 1
            begin, num_bytes = position + 1, 0
    if begin < len(sizes):
        yield begin, len(sizes)


def _fill_user(user: user_pb2.User, user_id: str, row: StoredUser, mirror: Mirror, history_limit: int) -> None:
    user.user_id, user.status, user.user_version = user_id, _status(row), row.version
    if row.deleted_at_ms:
        user.deleted_at.FromMilliseconds(row.deleted_at_ms)
    if row.header is None:
        return
    user.profile.CopyFrom(_profile_message(row.packed_profile))
    user.num_watched = row.header.num_watched
    entries = np.frombuffer(entries_of(row.state, row.header, history_limit), ENTRY)
    movies, add = mirror.movies, user.history.add
    for number, rating, time_ms, _ in entries.tolist():
        # NaN is the only number that differs from itself.
        entry = add(movie_id=movies[number].movie_id, rating=rating if rating == rating else None)
        event_time = entry.event_time
        event_time.seconds, event_time.nanos = time_ms // 1000, time_ms % 1000 * 1_000_000


@lru_cache(maxsize=65_536)
def _profile_message(packed: bytes) -> user_pb2.UserProfile:
    """Returns a profile as a message, to be copied and never changed."""
    profile = unpack_profile(packed)
    return user_pb2.UserProfile(gender=profile.gender, age=profile.age, occupation=profile.occupation, zip=profile.zip)


def _status(row: StoredUser) -> user_pb2.UserStatus.ValueType:
    if row.header is not None:
        return user_pb2.USER_STATUS_FOUND
    return user_pb2.USER_STATUS_EXPIRED if row.expired else user_pb2.USER_STATUS_NOT_FOUND
