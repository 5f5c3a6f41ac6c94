"""Lays out every value in Redis. Knows bytes; knows no key, no Redis and no message of the wire.

All numbers are little-endian; each value begins with the number of its format. scripts/*.lua read and write the same
layouts and change together with them.

User state (format 2), a header of 48 bytes, then the profile, the entries and the older ratings:

    u8 format · u8 0 · u16 profile bytes · u32 incarnation · u64 version · i64 deleted_at_ms
    i64 history_expires_at_ms · i64 profile_expires_at_ms, 0 for never
    u32 movies ever watched · u16 entries · u16 older ratings

Format 1 is read as well, and written as format 2 when its user changes: its header of 40 bytes has one time of expiry.

    profile        four fields (gender, age, occupation, zip): u8 length + 1, or 0 if absent, then the bytes; age one u8
    entry          u32 movie number · f32 rating or NaN · i64 event time in ms · u64 event hash; newest first
    older rating   as an entry, in the entries' order: the newest rated event of a movie whose newest event has no
                   rating. The entry repeats its rating, so that readers need entries only.

Seen set: format 1, a bitmap (number 0 is the highest bit of the first byte, as SETBIT counts) without trailing zero
bytes, if all numbers are below 16384 and it has at most 4 bytes a number; else format 2, ascending numbers as LEB128
differences, the first from zero. seen_sets.py packs them. Older builds wrote a bitmap wherever all are below 16384.
What is written depends on the set alone, not on how it came about.

Tombstone (format 1): u8 format · 3 zero bytes · u32 incarnation · u64 version · i64 deleted_at_ms
Log entry: a stream entry with the fields t (written at, in ms), and either u (user id) and e (an entry of 24 bytes), an
event, or h (what stands for the id) and d (deleted at, in ms), a deletion
Log positions: one u64 per partition
Movie (format 1): u8 format · u64 catalogue version of its last change · JSON
Catalogue pointer: text "ID VERSION NUM_MOVIES"
Rating scale: text "LOWEST HIGHEST"
Format of the store: the number, as text, of the newest format of a user's state that a build which wrote to it knows
"""

import hashlib
import json
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache, wraps
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from feature_service.keys import NUM_PARTITIONS
from service_runtime.errors import FailedPrecondition

FORMAT = 1
STATE_FORMAT, OLD_STATE_FORMAT = 2, 1
SEEN_BITMAP, SEEN_DELTAS = 1, 2
HEADER = struct.Struct("<BxHIQqqqIHH")
_OLD_HEADER = struct.Struct("<BxHIQqqIHH")
ENTRY = np.dtype([("number", "<u4"), ("rating", "<f4"), ("time_ms", "<i8"), ("hash", "<u8")])
EVENT = struct.Struct("<IfqQ")
HEADERS = np.dtype(
    {
        "names": [
            *("format", "profile_bytes", "incarnation", "version", "deleted_at_ms", "history_expires_at_ms"),
            *("profile_expires_at_ms", "num_watched", "num_entries", "num_older"),
        ],
        "formats": ["u1", "<u2", "<u4", "<u8", "<i8", "<i8", "<i8", "<u4", "<u2", "<u2"],
        "offsets": [0, 2, 4, 8, 16, 24, 32, 40, 44, 46],
        "itemsize": HEADER.size,
    }
)
"""As `HEADER`, of many users at once."""
TOMBSTONE = struct.Struct("<B3xIQq")
_MOVIE = struct.Struct("<BQ")

_Packed = TypeVar("_Packed")
_Value = TypeVar("_Value")


class FormatError(FailedPrecondition):
    """A value in Redis has a format that this build does not know: a newer one wrote it."""

    default_reason = "NEWER_FORMAT"


class DamagedValueError(FormatError):
    """A value in Redis is none that any build wrote: cut short or altered. What it holds is told to nobody."""

    default_reason = "DAMAGED_VALUE"


def _damage_named(what: str) -> Callable[[Callable[[_Packed], _Value]], Callable[[_Packed], _Value]]:
    """Makes what reading a damaged value raises an error that says which kind of value it is."""

    def naming(read: Callable[[_Packed], _Value]) -> Callable[[_Packed], _Value]:
        @wraps(read)
        def reading(packed: _Packed) -> _Value:
            try:
                return read(packed)
            except (struct.error, ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError):
                raise DamagedValueError(f"{what} in Redis is damaged") from None

        return reading

    return naming


class Header(NamedTuple):
    """The fixed part of a user's state; see the module's text."""

    format: int
    profile_bytes: int
    incarnation: int
    version: int
    deleted_at_ms: int
    history_expires_at_ms: int
    profile_expires_at_ms: int
    num_watched: int
    num_entries: int
    num_older: int


class Tombstone(NamedTuple):
    """What is left of a deleted user."""

    format: int
    incarnation: int
    version: int
    deleted_at_ms: int


class Profile(NamedTuple):
    """What is known of a person; None where nothing is."""

    gender: str | None = None
    age: int | None = None
    occupation: str | None = None
    zip: str | None = None


@dataclass(frozen=True, slots=True)
class StoredMovie:
    """One movie of a catalogue.

    Attributes:
        movie_id: External id.
        version: Catalogue version of its last change.
        title: None if unknown.
        year: None if unknown.
        genres: Names in the order given.
        bags: Further bags by name.
        removed: Whether it was taken from the catalogue.
    """

    movie_id: str
    version: int = 0
    title: str | None = None
    year: int | None = None
    genres: tuple[str, ...] = ()
    bags: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    removed: bool = False


class LogEntry(NamedTuple):
    """One entry of the event log: an event of a user, or a deletion.

    Attributes:
        written_at_ms: When it was written.
        user_id: Of an event; empty for a deletion.
        event: Of an event; bytes of `ENTRY`.
        digest: Of a deletion: what stands for the user's id, see `keys.UserKeys`.
        deleted_at_ms: Of a deletion.
    """

    written_at_ms: int
    user_id: str
    event: bytes
    digest: str
    deleted_at_ms: int


class CataloguePointer(NamedTuple):
    """Which catalogue is current."""

    catalogue_id: str
    version: int
    num_movies: int


class RatingScale(NamedTuple):
    """The stars that can be given to the movies of a catalogue, ends included."""

    lowest: float
    highest: float

    def __str__(self) -> str:
        return f"{self.lowest:g} to {self.highest:g}"


def event_hash(event_id: str) -> int:
    """Returns what stands for an event's id: 52 bits, which Lua's doubles hold exactly; 0 stands for "no id"."""
    digest = hashlib.blake2b(event_id.encode(), digest_size=8, person=b"marquee event").digest()
    return int.from_bytes(digest, "little") >> 12 or 1


@_damage_named("a user's state")
def unpack_header(state: bytes) -> Header:
    """Returns the fixed part of a user's state.

    Raises:
        FormatError: Another build wrote it.
    """
    if state[0] == STATE_FORMAT:
        return Header._make(HEADER.unpack_from(state))
    if state[0] != OLD_STATE_FORMAT:
        raise FormatError(
            f"a user's state has format {state[0]}, this build knows {OLD_STATE_FORMAT} and {STATE_FORMAT}"
        )
    form, profile_bytes, incarnation, version, deleted_at_ms, expires_at_ms, *rest = _OLD_HEADER.unpack_from(state)
    return Header(form, profile_bytes, incarnation, version, deleted_at_ms, expires_at_ms, expires_at_ms, *rest)


def pack_state(profile: bytes, entries: bytes, older: bytes, num_watched: int) -> bytes:
    """Returns the state of a user who was not stored before; version and times are filled in where it is written."""
    num_entries, num_older = len(entries) // ENTRY.itemsize, len(older) // ENTRY.itemsize
    header = HEADER.pack(STATE_FORMAT, len(profile), 0, 0, 0, 0, 0, num_watched, num_entries, num_older)
    return header + profile + entries + older


def pack_states(
    entries: bytes, starts: NDArray[np.int64], older: bytes, older_starts: NDArray[np.int64], window: int
) -> list[bytes]:
    """Returns the states of B users without profile, as `pack_state` does each; no bytes for who watched nothing.

    Args:
        entries: Of all movies that the users watched, newest first within each; a state has at most `window` of them.
        starts: User b watched movies starts[b]:starts[b + 1]. [B + 1]
        older: The older ratings that states have.
        older_starts: User b has older ratings older_starts[b]:older_starts[b + 1]. [B + 1]
        window: Newest movies to keep per user.
    """
    headers = np.zeros(len(starts) - 1, HEADERS)
    headers["format"] = STATE_FORMAT
    headers["num_watched"] = np.diff(starts)
    headers["num_entries"] = np.minimum(headers["num_watched"], window)
    headers["num_older"] = np.diff(older_starts)
    joined, size = headers.tobytes(), ENTRY.itemsize
    ends = (starts[:-1] + headers["num_entries"]) * size
    bounds = zip(
        (starts[:-1] * size).tolist(),
        ends.tolist(),
        (older_starts[:-1] * size).tolist(),
        (older_starts[1:] * size).tolist(),
        strict=True,
    )
    return [
        joined[at : at + HEADER.size] + entries[begin:end] + older[older_begin:older_end] if end > begin else b""
        for at, (begin, end, older_begin, older_end) in zip(range(0, len(joined), HEADER.size), bounds, strict=True)
    ]


def in_newest_format(state: bytes) -> bytes:
    """Returns a user's state as this build writes it.

    Raises:
        FormatError: Another build wrote it.
    """
    header = unpack_header(state)
    if header.format == STATE_FORMAT:
        return state
    return HEADER.pack(*header._replace(format=STATE_FORMAT)) + state[_OLD_HEADER.size :]


@_damage_named("a tombstone")
def unpack_tombstone(value: bytes) -> Tombstone:
    """Returns a tombstone.

    Raises:
        FormatError: Another build wrote it.
    """
    if value[0] != FORMAT:
        raise FormatError(f"a tombstone has format {value[0]}, this build knows {FORMAT}")
    return Tombstone._make(TOMBSTONE.unpack(value))


def pack_profile_field(value: str | int | None) -> bytes:
    """Returns one field of a profile."""
    if value is None:
        return b"\0"
    text = bytes([value]) if isinstance(value, int) else value.encode()
    return bytes([len(text) + 1]) + text


@lru_cache(maxsize=65_536)
@_damage_named("a profile")
def unpack_profile(packed: bytes) -> Profile:
    """Returns a profile; the empty one of no bytes. Raises `DamagedValueError`."""
    fields: list[bytes | None] = []
    position = 0
    while position < len(packed):
        end = position + max(1, packed[position])
        fields.append(packed[position + 1 : end] if packed[position] else None)
        position = end
    if not fields:
        return Profile()
    gender, age, occupation, zip_code = fields
    return Profile(
        None if gender is None else gender.decode(),
        None if age is None else age[0],
        None if occupation is None else occupation.decode(),
        None if zip_code is None else zip_code.decode(),
    )


@_damage_named("an entry of the event log")
def unpack_log_entry(fields: Mapping[bytes, bytes]) -> LogEntry:
    """Returns an entry of the event log. Raises `DamagedValueError`."""
    return LogEntry(
        int(fields[b"t"]),
        fields.get(b"u", b"").decode(),
        fields.get(b"e", b""),
        fields.get(b"h", b"").decode(),
        int(fields.get(b"d", 0)),
    )


def pack_positions(positions: Sequence[int]) -> bytes:
    """Returns positions of the event log."""
    return np.array(positions, "<u8").tobytes()


def unpack_positions(packed: bytes) -> tuple[int, ...]:
    """Returns positions of the event log.

    Raises:
        ValueError: The bytes hold no such number of them.
    """
    if len(packed) != NUM_PARTITIONS * 8:
        raise ValueError(f"log positions have {len(packed)} bytes; {NUM_PARTITIONS * 8} would be right")
    return tuple(np.frombuffer(packed, "<u8").tolist())


def pack_movie(movie: StoredMovie) -> bytes:
    """Returns a movie as it lies in Redis."""
    row = {
        "id": movie.movie_id,
        "title": movie.title,
        "year": movie.year,
        "genres": movie.genres,
        "bags": movie.bags,
        "removed": movie.removed,
    }
    text = json.dumps(row, ensure_ascii=False, separators=(",", ":"))
    return _MOVIE.pack(FORMAT, movie.version) + text.encode()


@_damage_named("a movie")
def unpack_movie(value: bytes) -> StoredMovie:
    """Returns a movie from Redis.

    Raises:
        FormatError: Another build wrote it.
    """
    number, version = _MOVIE.unpack_from(value)
    if number != FORMAT:
        raise FormatError(f"a movie has format {number}, this build knows {FORMAT}")
    row = json.loads(value[_MOVIE.size :])
    bags = {name: tuple(values) for name, values in row["bags"].items()}
    return StoredMovie(row["id"], version, row["title"], row["year"], tuple(row["genres"]), bags, row["removed"])


def pack_pointer(pointer: CataloguePointer) -> bytes:
    """Returns a catalogue pointer as text."""
    return f"{pointer.catalogue_id} {pointer.version} {pointer.num_movies}".encode()


@_damage_named("the catalogue's pointer")
def unpack_pointer(value: bytes) -> CataloguePointer:
    """Returns a catalogue pointer. Raises `DamagedValueError`."""
    catalogue_id, version, num_movies = value.decode().split(" ")
    return CataloguePointer(catalogue_id, int(version), int(num_movies))


def pack_rating_scale(scale: RatingScale) -> bytes:
    """Returns a rating scale as text."""
    return f"{scale.lowest!r} {scale.highest!r}".encode()


@_damage_named("the rating scale")
def unpack_rating_scale(value: bytes) -> RatingScale:
    """Returns a rating scale. Raises `DamagedValueError`."""
    lowest, highest = value.split(b" ")
    return RatingScale(float(lowest), float(highest))
