"""What is packed is unpacked."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from feature_service.keys import NUM_PARTITIONS, user_keys
from feature_service.seen_sets import SEEN_BITMAP_MOVIES, pack_seen, pack_seen_sets, unpack_seen, unpack_seen_sets
from feature_service.value_format import (
    HEADER,
    FormatError,
    Profile,
    StoredMovie,
    event_hash,
    pack_movie,
    pack_profile_field,
    unpack_header,
    unpack_movie,
    unpack_profile,
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
