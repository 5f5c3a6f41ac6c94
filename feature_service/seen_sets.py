"""Packs and unpacks the seen sets of many users at once. Knows their two formats; knows no Redis and no message.

value_format.py says how they are laid out, scripts/seen_set.lua reads and writes the same bytes. All sets of a call
go through the same few steps over arrays, because a step costs some microseconds whether it is for one set or for 1000.
"""

from collections.abc import Sequence
from itertools import accumulate, pairwise

import numpy as np
from numpy.typing import NDArray

from feature_service.value_format import SEEN_BITMAP, SEEN_DELTAS, FormatError

# A bitmap of 2 kB holds any set below it. m: a bitmap is 1 kB at 3.7k movies and 129 kB at 1M.
SEEN_BITMAP_MOVIES = 16_384
# Differences are a byte or two a movie. A bitmap of more bytes a movie than this is larger by far: of who watched 50 of
# 10,000 movies 1.2 kB instead of 0.1 kB. One of fewer is worth them, because an event sets a bit in it, while all
# differences have to be read first; this way there are no more than 512 of them.
BITMAP_BYTES_PER_MOVIE = 4
# Of seven bits each: 32 bits have no more.
_MAX_GROUPS = 5

_Numbers = NDArray[np.int64]


def pack_seen(numbers: NDArray[np.integer]) -> bytes:
    """Returns a seen set of ascending, distinct numbers; the empty set is no value at all."""
    return pack_seen_sets(numbers.astype(np.int64), np.array([0, len(numbers)]))[0]


def pack_seen_sets(numbers: _Numbers, offsets: _Numbers) -> list[bytes]:
    """Returns B seen sets, as `pack_seen` does each.

    Args:
        numbers: Those of all sets, end to end, ascending and distinct within each. [E]
        offsets: Set b has numbers offsets[b]:offsets[b + 1]. [B + 1]
    """
    lengths = np.diff(offsets)
    packed = [b""] * len(lengths)
    filled = np.flatnonzero(lengths)
    highest = numbers[offsets[1:][filled] - 1]
    num_bytes = highest // 8 + 1
    as_bitmap = (highest < SEEN_BITMAP_MOVIES) & (num_bytes <= BITMAP_BYTES_PER_MOVIE * lengths[filled])
    is_bitmap = np.zeros(len(lengths), np.bool_)
    is_bitmap[filled] = as_bitmap
    of_bitmap = np.repeat(is_bitmap, lengths)
    bitmaps, deltas = filled[as_bitmap], filled[~as_bitmap]
    for at, value in zip(
        bitmaps.tolist(), _pack_bitmaps(numbers[of_bitmap], lengths[bitmaps], num_bytes[as_bitmap]), strict=True
    ):
        packed[at] = value
    for at, value in zip(deltas.tolist(), _pack_deltas(numbers[~of_bitmap], lengths[deltas]), strict=True):
        packed[at] = value
    return packed


def unpack_seen(value: bytes) -> NDArray[np.uint32]:
    """Returns the ascending numbers of a seen set. uint32 [n].

    Raises:
        FormatError: Another build wrote it.
    """
    return unpack_seen_sets([value])[0]


def unpack_seen_sets(values: Sequence[bytes]) -> tuple[NDArray[np.uint32], _Numbers]:
    """Returns the numbers of B seen sets, end to end and ascending within each, and how many each has.

    Raises:
        FormatError: Another build wrote one of them.
    """
    found = {value[0] for value in values if value}
    if found <= {SEEN_DELTAS}:
        return _unpack_deltas(values)
    if not found <= {SEEN_BITMAP, SEEN_DELTAS}:
        raise FormatError(f"a seen set has format {max(found)}, this build knows {SEEN_BITMAP} and {SEEN_DELTAS}")
    kinds: dict[int, list[int]] = {SEEN_BITMAP: [], SEEN_DELTAS: []}
    for at, value in enumerate(values):
        if value:
            kinds[value[0]].append(at)
    bitmaps, bitmap_lengths = _unpack_bitmaps([values[at] for at in kinds[SEEN_BITMAP]])
    deltas, delta_lengths = _unpack_deltas([values[at] for at in kinds[SEEN_DELTAS]])
    lengths = np.zeros(len(values), np.int64)
    lengths[kinds[SEEN_BITMAP]], lengths[kinds[SEEN_DELTAS]] = bitmap_lengths, delta_lengths
    if not kinds[SEEN_DELTAS]:
        return bitmaps, lengths
    owners = np.concatenate(
        [np.repeat(kinds[SEEN_BITMAP], bitmap_lengths), np.repeat(kinds[SEEN_DELTAS], delta_lengths)]
    )
    return np.concatenate([bitmaps, deltas])[np.argsort(owners, kind="stable")], lengths


def _pack_bitmaps(numbers: _Numbers, lengths: _Numbers, num_bytes: _Numbers) -> list[bytes]:
    ends = np.cumsum(num_bytes + 1)
    starts = ends - num_bytes - 1
    packed = np.zeros(ends[-1] if len(ends) else 0, np.uint8)
    packed[starts] = SEEN_BITMAP
    # Bits of a set are all different, so that adding them is setting them.
    np.add.at(packed, np.repeat(starts + 1, lengths) + (numbers >> 3), (0x80 >> (numbers & 7)).astype(np.uint8))
    return _cut(packed.tobytes(), ends)


def _pack_deltas(numbers: _Numbers, lengths: _Numbers) -> list[bytes]:
    starts = np.cumsum(lengths) - lengths
    deltas = numbers.copy()
    deltas[1:] -= numbers[:-1]
    deltas[starts] = numbers[starts]
    places = np.arange(max(1, -(-int(deltas.max(initial=0)).bit_length() // 7)))
    groups = (deltas[:, None] >> (7 * places)) & 0x7F  # [E, G], lowest first
    highest = np.max(np.where(groups > 0, places, 0), axis=1)  # [E]
    follows = places < highest[:, None]
    body = (groups + 0x80 * follows)[places <= highest[:, None]].astype(np.uint8).tobytes()
    num_bytes = np.add.reduceat(highest + 1, starts) if len(starts) else lengths
    head = bytes([SEEN_DELTAS])
    return [head + value for value in _cut(body, np.cumsum(num_bytes))]


def _cut(joined: bytes, ends: _Numbers) -> list[bytes]:
    return [joined[begin:end] for begin, end in pairwise([0, *ends.tolist()])]


def _unpack_bitmaps(values: Sequence[bytes]) -> tuple[NDArray[np.uint32], _Numbers]:
    bits = np.flatnonzero(np.unpackbits(np.frombuffer(b"".join(value[1:] for value in values), np.uint8)))
    ends = 8 * np.cumsum(np.array([len(value) - 1 for value in values], np.int64))
    lengths = np.diff(np.searchsorted(bits, ends), prepend=0)
    starts = np.concatenate([np.zeros(1, np.int64), ends])[:-1]
    return (bits - np.repeat(starts, lengths)).astype(np.uint32), lengths


def _unpack_deltas(values: Sequence[bytes]) -> tuple[NDArray[np.uint32], _Numbers]:
    if not all(values):
        filled = [at for at, value in enumerate(values) if value]
        lengths = np.zeros(len(values), np.int64)
        numbers, lengths[filled] = _unpack_deltas([values[at] for at in filled])
        return numbers, lengths
    if not values:
        return np.zeros(0, np.uint32), np.zeros(0, np.int64)
    body = np.frombuffer(b"".join(values), np.uint8)
    starts = np.fromiter(accumulate(map(len, values[:-1]), initial=0), np.int64, len(values))
    ends_number = body < 0x80
    ends_number[starts] = False  # the format that a value begins with looks like a number
    groups = (body & 0x7F).astype(np.uint32)
    follows = body >> 7
    is_later, place = follows[:-1], 1
    while place < _MAX_GROUPS and np.count_nonzero(is_later):
        groups[place:] <<= 7 * is_later
        is_later = is_later[1:] & follows[: -1 - place]
        place += 1
    # Of all sets; that it overflows does not matter, because what is taken off below did so too.
    sums = np.add.accumulate(groups)
    lengths = np.add.reduceat(ends_number, starts, dtype=np.int64)
    numbers = sums.compress(ends_number)
    numbers -= sums[starts].repeat(lengths)
    return numbers, lengths
