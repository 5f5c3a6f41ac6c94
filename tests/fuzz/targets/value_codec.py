"""Attacks what reads values from Redis. Whatever lies there, FormatError is all that may come of it."""

import struct
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
from marquee.v1 import feature_service_pb2, user_pb2

from feature_service import seen_sets, stored_users, user_answers, value_format
from feature_service.keys import NUM_PARTITIONS
from feature_service.value_format import CataloguePointer, FormatError, Profile, RatingScale, StoredMovie

_NOW_MS = 1_700_000_000_000
_POINTER = CataloguePointer("c", 1, 1)


class ValueCodec:
    """The first byte of an input says which reader gets the rest."""

    def __init__(self, folder: Path) -> None:
        """Needs no files."""
        self._readers: list[Callable[[bytes], object]] = [
            _state,
            _seen,
            value_format.unpack_movie,
            value_format.unpack_tombstone,
            value_format.unpack_pointer,
            value_format.unpack_rating_scale,
            _positions,
            _log_entry,
            value_format.unpack_header,
        ]

    def seeds(self) -> Sequence[bytes]:
        """Returns sound values of each kind."""
        profile = b"".join(value_format.pack_profile_field(each) for each in Profile("F", 25, "doctor", "12345"))
        entry = value_format.EVENT.pack(7, 4.0, _NOW_MS, 1)
        state = value_format.pack_state(profile, entry * 2, entry, 2)
        old = struct.pack("<BxHIQqqIHH", 1, len(profile), 1, 1, 0, _NOW_MS, 2, 2, 1) + profile + entry * 3
        of_kind: list[list[bytes]] = [
            [state, old, value_format.pack_state(b"", entry, b"", 1)],
            [seen_sets.pack_seen(np.arange(0, 64)), seen_sets.pack_seen(np.array([3, 100_000, 2**32 - 1]))],
            [value_format.pack_movie(StoredMovie("m", 7, "Title", 2001, ("Drama",), {"cast": ("a", "b")}))],
            [value_format.TOMBSTONE.pack(value_format.FORMAT, 1, 2, 3)],
            [value_format.pack_pointer(_POINTER)],
            [value_format.pack_rating_scale(RatingScale(0.5, 5.0))],
            [value_format.pack_positions([1] * NUM_PARTITIONS)],
            [b"t\x0112345u\x04usere\x18" + entry],
            [state[: value_format.HEADER.size], old],
        ]
        return [bytes([kind]) + value for kind, values in enumerate(of_kind) for value in values]

    def attack(self, data: bytes) -> None:
        """Reads an input. Raises what should not be raised."""
        if not data:
            return
        try:
            self._readers[data[0] % len(self._readers)](data[1:])
        except FormatError:
            return


def _state(value: bytes) -> None:
    """Reads a user as answers do, between two others whom his damage must not touch."""
    sound = value_format.pack_state(b"", value_format.EVENT.pack(7, 4.0, _NOW_MS, 1), b"", 1)
    if not value:
        return
    users = stored_users.take_apart(_POINTER, "0" * 16, [0, 0, 0], [sound, value, sound], [b"", b"", b""], {}, _NOW_MS)
    rows = list(users.rows())
    assert rows[0].entries == rows[2].entries == sound[-24:]
    for row in rows:
        np.frombuffer(row.entries, value_format.ENTRY)
        _ = row.profile
    reply = feature_service_pb2.BatchGetUsersResponse()
    user_answers.add_user_columns(reply, users, 200, include_seen=False)
    assert reply.columns.statuses[0] == reply.columns.statuses[2] == user_pb2.USER_STATUS_FOUND


def _positions(value: bytes) -> None:
    """Reads positions, which callers send too: those that are none are a ValueError, which becomes their violation."""
    with suppress(ValueError):
        value_format.unpack_positions(value)


def _seen(value: bytes) -> None:
    """Reads a seen set between two others."""
    sound = seen_sets.pack_seen(np.array([3, 100_000]))
    numbers, lengths = seen_sets.unpack_seen_sets([sound, value, sound])
    assert lengths.sum() == len(numbers)
    assert numbers[: lengths[0]].tolist() == [3, 100_000] == numbers[len(numbers) - lengths[2] :].tolist()


def _log_entry(value: bytes) -> None:
    """Reads fields of a stream entry, written as name, length, content."""
    fields: dict[bytes, bytes] = {}
    at = 0
    while at + 2 <= len(value):
        end = at + 2 + value[at + 1]
        fields[value[at : at + 1]] = value[at + 2 : end]
        at = end
    value_format.unpack_log_entry(fields)
