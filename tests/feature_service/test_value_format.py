"""What is packed is unpacked."""

from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from feature_service.keys import NUM_PARTITIONS, user_keys
from feature_service.seen_sets import SEEN_BITMAP_MOVIES, pack_seen, pack_seen_sets, unpack_seen, unpack_seen_sets
from feature_service.stored_users import take_apart
from feature_service.value_format import (
    EVENT,
    HEADER,
    TOMBSTONE,
    CataloguePointer,
    DamagedValueError,
    FormatError,
    Profile,
    StoredMovie,
    event_hash,
    pack_movie,
    pack_pointer,
    pack_profile_field,
    pack_state,
    unpack_header,
    unpack_movie,
    unpack_pointer,
    unpack_profile,
    unpack_rating_scale,
    unpack_tombstone,
)


@given(numbers=st.sets(st.integers(0, 2**32 - 1) | st.integers(0, 20_000), max_size=300))
def test_a_seen_set_survives(numbers):
    """Any set of numbers, in either format, is the same after packing."""
    ascending = np.array(sorted(numbers), np.int64)

    assert unpack_seen(pack_seen(ascending)).tolist() == ascending.tolist()


@given(sets=st.lists(st.sets(st.integers(0, 2**32 - 1) | st.integers(0, 20_000) | st.integers(0, 40), max_size=40)))
def test_seen_sets_together_equal_each_alone(sets):
    """Packing and unpacking many at once changes nothing but the time it takes; some are empty."""
    ascending = [np.array(sorted(numbers), np.int64) for numbers in sets]
    offsets = np.cumsum([0, *map(len, ascending)])

    packed = pack_seen_sets(np.concatenate([np.zeros(0, np.int64), *ascending]), offsets)
    numbers, lengths = unpack_seen_sets(packed)

    assert packed == [pack_seen(one) for one in ascending]
    assert lengths.tolist() == [len(one) for one in ascending]
    assert numbers.tolist() == [number for one in ascending for number in one.tolist()]


def test_a_seen_set_is_small():
    """A bitmap of 2 kB at most where many were watched; a byte or two a movie where few were, or above its range."""
    assert len(pack_seen(np.arange(SEEN_BITMAP_MOVIES))) == 1 + SEEN_BITMAP_MOVIES // 8
    assert len(pack_seen(np.arange(0, SEEN_BITMAP_MOVIES, 300))) == 2 * 55
    assert len(pack_seen(np.arange(100_000, 102_000))) < 2010


@pytest.mark.parametrize(
    "profile", [Profile(), Profile(age=0), Profile("F", 25, "Künstlerin", "0" * 32), Profile(zip="1")]
)
def test_a_profile_survives(profile):
    """Each field, its absence and age 0 are told apart."""
    assert unpack_profile(b"".join(pack_profile_field(value) for value in profile)) == profile


def test_a_movie_survives():
    """All fields, in any script."""
    movie = StoredMovie("m", 7, "千と千尋", 2001, ("Animation",), {"cast": ("柊", "入野")}, removed=True)

    assert unpack_movie(pack_movie(movie)) == movie


def test_values_of_a_newer_build_are_refused():
    """An unknown format is an error, never a wrong answer."""
    with pytest.raises(FormatError):
        unpack_header(b"\x03" + bytes(HEADER.size - 1))
    with pytest.raises(FormatError):
        unpack_seen(b"\x03abc")
    with pytest.raises(FormatError):
        unpack_movie(b"\x02" + pack_movie(StoredMovie("m"))[1:])


def sound_values():
    """Returns each reader with a value that it reads and what of its beginning does not tell a build's format."""
    entry = EVENT.pack(7, 4.0, 1000, 1)
    state = pack_state(b"".join(pack_profile_field(each) for each in Profile("F", 25, "doctor", "1")), entry, b"", 1)
    return [
        (lambda value: take_apart(CataloguePointer("c", 1, 1), "e", [0], [value], [None], {}, 0), state),
        (unpack_profile, state[HEADER.size : -24]),
        (unpack_movie, pack_movie(StoredMovie("m", 7, "Title", 2001, ("Drama",), {"cast": ("a",)}))),
        (unpack_tombstone, TOMBSTONE.pack(1, 1, 2, 3)),
        (unpack_pointer, pack_pointer(CataloguePointer("c", 1, 1))),
        (unpack_rating_scale, b"0.5"),
    ]


@pytest.mark.parametrize(("read", "value"), sound_values())
def test_damaged_values_are_refused(read, value):
    """Cut anywhere, a value is an error that says so and holds nothing of what it held; the format is told apart."""
    refusals = []
    for end in range(1, len(value)):
        with suppress(DamagedValueError):
            read(value[:end])
            continue
        refusals.append(end)

    # A profile that ends with a field that is cut may read as a shorter one.
    assert len(refusals) >= len(value) * 0.5
    with pytest.raises(DamagedValueError, match="in Redis is damaged") as raised:
        read(value[:1] + b"\xff")
    assert raised.value.reason == "DAMAGED_VALUE"


def test_a_damaged_user_is_nobody_elses():
    """One whose state is cut short does not move the bytes of those who are read with him."""
    entry = EVENT.pack(7, 4.0, 1000, 1)
    sound, cut = pack_state(b"", entry, b"", 1), pack_state(b"", entry, b"", 1)[:20]

    with pytest.raises(DamagedValueError):
        take_apart(CataloguePointer("c", 1, 1), "e", [0] * 3, [sound, cut, sound], [None] * 3, {}, 0)


def test_event_hashes_are_exact_in_lua():
    """A hash is a whole number that a double holds, and never the one that means "no id"."""
    hashes = [event_hash(f"event {i}") for i in range(1000)]

    assert len(set(hashes)) == 1000
    assert all(0 < number < 2**52 for number in hashes)


def test_partitions_never_move():
    """Where a user lies is part of the stored format: these values must not change."""
    assert [user_keys(name).partition for name in ("1", "alice", "ü")] == [50, 5, 34]
    assert user_keys("alice").state == b"{p%d}:u:alice" % 5
    assert b"alice" not in user_keys("alice").tombstone


def test_partitions_are_even():
    """64 partitions share users fairly."""
    counts = np.bincount([user_keys(f"user {i}").partition for i in range(6400)], minlength=NUM_PARTITIONS)

    assert counts.min() > 50
    assert counts.max() < 160
