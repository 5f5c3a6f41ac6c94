"""Lays users out for callers: typed fields, or arrays for a whole batch. Knows values and messages; knows no Redis."""

import struct
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from typing import cast

import numpy as np
from marquee.v1 import feature_service_pb2, user_pb2

from feature_service.catalogue import Mirror
from feature_service.seen_sets import unpack_seen_sets
from feature_service.stored_users import EXPIRED, FOUND, NOT_FOUND, StoredUser, StoredUsers
from feature_service.value_format import ENTRY, unpack_profile
from service_runtime.server import MAX_MESSAGE_BYTES

# Four bytes each: 2.8 MB of an answer, which leaves room for 250 histories of the usual window, 0.8 MB.
MAX_SEEN_NUMBERS = 700_000
# A number is up to five bytes packed and some fifty while it is unpacked: so 10 MB at most, whatever is asked for.
_SEEN_BYTES_AT_ONCE = 200_000
# What the answer holds beside its columns, and the framing of all its fields.
_RESERVE_BYTES = 4096
_STATUSES = {
    FOUND: user_pb2.USER_STATUS_FOUND,
    NOT_FOUND: user_pb2.USER_STATUS_NOT_FOUND,
    EXPIRED: user_pb2.USER_STATUS_EXPIRED,
}


def add_full_users(
    reply: feature_service_pb2.BatchGetUsersResponse,
    user_ids: Sequence[str],
    rows: Iterable[StoredUser],
    mirror: Mirror,
    history_limit: int,
) -> None:
    """Adds users with typed fields to an answer.

    They are made where they will stay: what is made elsewhere and added costs a copy, and the memory of both.
    """
    for user_id, row in zip(user_ids, rows, strict=True):
        _fill_user(reply.users.add(), user_id, row, mirror, history_limit)


def add_user_columns(
    reply: feature_service_pb2.BatchGetUsersResponse, users: StoredUsers, history_limit: int, *, include_seen: bool
) -> None:
    """Adds users as arrays to an answer, in place as `add_full_users` does."""
    histories, lengths = users.histories(history_limit)
    entries = np.frombuffer(b"".join(histories), ENTRY)
    columns = reply.columns
    columns.statuses.extend(cast(Sequence[user_pb2.UserStatus.ValueType], users.statuses))
    columns.user_versions.extend(users.versions)
    columns.lengths = _packed("I", lengths)
    columns.movie_numbers = entries["number"].tobytes()
    columns.ratings = entries["rating"].tobytes()
    columns.event_times_ms = entries["time_ms"].tobytes()
    columns.num_watched = _packed("I", users.nums_watched())
    columns.deleted_at_ms = _packed("q", users.deleted_at_ms)
    columns.expires_at_ms = _packed("q", users.expires_at_ms)
    columns.profile_statuses = bytes(users.profile_statuses)
    columns.history_statuses = bytes(users.history_statuses)
    # Parsing what was serialised before takes a fifth of the time of copying messages.
    profiles = b"".join([_profile_on_the_wire(packed) for packed in users.packed_profiles()])
    columns.MergeFromString(profiles)
    if include_seen:
        num_users = len(users.versions)
        # Beside the profiles: 16 an entry; per user three statuses, two u32, two i64, and a version with its frame.
        num_bytes = len(profiles) + 16 * len(entries) + 29 * num_users + sum(map(len, users.versions))
        _add_seen(columns, users.seen, MAX_MESSAGE_BYTES - _RESERVE_BYTES - num_bytes)


def _packed(kind: str, numbers: Sequence[int]) -> bytes:
    """Returns numbers as the wire carries arrays."""
    return struct.pack(f"<{len(numbers)}{kind}", *numbers)


def _add_seen(columns: user_pb2.UserColumns, seen: Sequence[bytes], num_bytes: int) -> None:
    """Adds seen sets in the order of the rows while there is room in so many bytes; others are marked as omitted."""
    room = min((num_bytes - 5 * len(seen)) // 4, MAX_SEEN_NUMBERS)
    parts: list[bytes] = []
    lengths: list[int] = []
    omitted = bytearray(len(seen))
    for begin, end in _portions(list(map(len, seen))):
        numbers, found = unpack_seen_sets(seen[begin:end])
        found_lengths = found.tolist()
        if len(numbers) <= room:
            room -= len(numbers)
        else:
            for position, length in enumerate(found_lengths):
                omitted[begin + position] = length > room
                room -= 0 if length > room else length
            is_omitted = np.frombuffer(omitted[begin:end], np.bool_)
            numbers = numbers[~np.repeat(is_omitted, found)]
            found_lengths = np.where(is_omitted, 0, found).tolist()
        parts.append(numbers.astype("<u4", copy=False).tobytes())
        lengths += found_lengths
    columns.seen_lengths = _packed("I", lengths)
    columns.seen_numbers = b"".join(parts)
    columns.seen_omitted = bytes(omitted)


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
    user.user_id, user.user_version = user_id, row.version
    user.status = _STATUSES[row.status]
    user.profile_status, user.history_status = _STATUSES[row.profile_status], _STATUSES[row.history_status]
    if row.deleted_at_ms:
        user.deleted_at.FromMilliseconds(row.deleted_at_ms)
    if row.header is None:
        return
    user.profile.CopyFrom(_profile_message(row.packed_profile))
    user.num_watched = row.header.num_watched
    entries = np.frombuffer(row.entries[: history_limit * ENTRY.itemsize], ENTRY)
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


@lru_cache(maxsize=65_536)
def _profile_on_the_wire(packed: bytes) -> bytes:
    """Returns a profile as one more element of `UserColumns.profiles`."""
    return user_pb2.UserColumns(profiles=[_profile_message(packed)]).SerializeToString()
