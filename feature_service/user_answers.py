"""Lays users out for callers: typed fields, or arrays for a whole batch. Knows values and messages; knows no Redis."""

from collections.abc import Iterator, Sequence

import numpy as np
from google.protobuf.timestamp_pb2 import Timestamp
from marquee.v1 import user_pb2
from numpy.typing import NDArray

from feature_service.catalogue import Mirror
from feature_service.seen_sets import unpack_seen_sets
from feature_service.users import StoredUser
from feature_service.value_format import ENTRY, Profile, entries_of
from service_runtime.server import MAX_MESSAGE_BYTES

# Four bytes each: 2.8 MB of an answer, which leaves room for 250 histories of the usual window, 0.8 MB.
MAX_SEEN_NUMBERS = 700_000
# A number is up to five bytes packed and some fifty while it is unpacked: so 10 MB at most, whatever is asked for.
_SEEN_BYTES_AT_ONCE = 200_000
# What the answer holds beside its columns, and the framing of all its fields.
_RESERVE_BYTES = 4096


def full_users(
    user_ids: Sequence[str], rows: Sequence[StoredUser], mirror: Mirror, history_limit: int
) -> list[user_pb2.User]:
    """Returns users with typed fields."""
    return [_full_user(user_id, row, mirror, history_limit) for user_id, row in zip(user_ids, rows, strict=True)]


def user_columns(rows: Sequence[StoredUser], history_limit: int, *, include_seen: bool) -> user_pb2.UserColumns:
    """Returns users as arrays."""
    histories = [b"" if row.header is None else entries_of(row.state, row.header, history_limit) for row in rows]
    lengths = np.array([len(history) // ENTRY.itemsize for history in histories], "<u4")
    entries = np.frombuffer(b"".join(histories), ENTRY)
    columns = user_pb2.UserColumns(
        statuses=[_status(row) for row in rows],
        profiles=[_profile(row.profile) for row in rows],
        user_versions=[row.version for row in rows],
        lengths=lengths.tobytes(),
        movie_numbers=entries["number"].tobytes(),
        ratings=entries["rating"].tobytes(),
        event_times_ms=entries["time_ms"].tobytes(),
        num_watched=np.array([row.header.num_watched if row.header else 0 for row in rows], "<u4").tobytes(),
        deleted_at_ms=np.array([row.deleted_at_ms for row in rows], "<i8").tobytes(),
        expires_at_ms=np.array([row.header.expires_at_ms if row.header else 0 for row in rows], "<i8").tobytes(),
    )
    if include_seen:
        _add_seen(columns, rows)
    return columns


def _add_seen(columns: user_pb2.UserColumns, rows: Sequence[StoredUser]) -> None:
    """Adds seen sets in the order of the rows while there is room; the others are marked as omitted."""
    room = (MAX_MESSAGE_BYTES - _RESERVE_BYTES - columns.ByteSize() - 5 * len(rows)) // 4
    room = min(room, MAX_SEEN_NUMBERS)
    parts: list[NDArray[np.uint32]] = []
    lengths, omitted = np.zeros(len(rows), np.int64), np.zeros(len(rows), np.bool_)
    for begin, end in _portions([len(row.seen) for row in rows]):
        numbers, own = unpack_seen_sets([row.seen for row in rows[begin:end]])
        for position, length in enumerate(own.tolist(), begin):
            omitted[position] = length > room
            room -= 0 if length > room else length
        parts.append(numbers[~np.repeat(omitted[begin:end], own)] if omitted[begin:end].any() else numbers)
        lengths[begin:end] = np.where(omitted[begin:end], 0, own)
    columns.seen_lengths = lengths.astype("<u4").tobytes()
    columns.seen_numbers = b"".join(part.astype("<u4").tobytes() for part in parts)
    columns.seen_omitted = omitted.astype(np.uint8).tobytes()


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


def _full_user(user_id: str, row: StoredUser, mirror: Mirror, history_limit: int) -> user_pb2.User:
    user = user_pb2.User(user_id=user_id, status=_status(row), user_version=row.version)
    if row.deleted_at_ms:
        user.deleted_at.FromMilliseconds(row.deleted_at_ms)
    if row.header is None:
        return user
    user.profile.CopyFrom(_profile(row.profile))
    user.num_watched = row.header.num_watched
    entries = np.frombuffer(entries_of(row.state, row.header, history_limit), ENTRY)
    for number, rating, time_ms, _ in entries.tolist():
        user.history.add(
            movie_id=mirror.movies[number].movie_id,
            rating=rating if rating == rating else None,  # NaN is the only number that differs from itself
            event_time=Timestamp(seconds=time_ms // 1000, nanos=time_ms % 1000 * 1_000_000),
        )
    return user


def _profile(profile: Profile) -> user_pb2.UserProfile:
    return user_pb2.UserProfile(gender=profile.gender, age=profile.age, occupation=profile.occupation, zip=profile.zip)


def _status(row: StoredUser) -> user_pb2.UserStatus.ValueType:
    if row.header is not None:
        return user_pb2.USER_STATUS_FOUND
    return user_pb2.USER_STATUS_EXPIRED if row.expired else user_pb2.USER_STATUS_NOT_FOUND
