"""How stored users and what a request adds become what a user tower sees."""

import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from model_service.queries import Watched
from model_service.user_rows import merge

events = st.lists(st.tuples(st.integers(0, 5), st.sampled_from([1.0, 4.5, math.nan]), st.integers(0, 4)), max_size=12)


def watched(rows):
    return Watched(
        np.array([row[0] for row in rows], np.int64),
        np.array([row[1] for row in rows], np.float32),
        np.array([row[2] for row in rows], np.int64),
    )


def rows_of(merged):
    return [
        (number, "unrated" if math.isnan(rating) else rating, time)
        for number, rating, time in zip(
            merged.movie_numbers.tolist(), merged.ratings.tolist(), merged.event_times_ms.tolist(), strict=True
        )
    ]


@given(newer=events, older=events)
def test_merging_keeps_the_newest_event_of_each_movie_and_its_last_rating(newer, older):
    """As a walk through all events says, one movie after another."""
    merged = merge(watched(newer), watched(older))

    expected = []
    for number in {row[0] for row in newer + older}:
        # Stable: of equal times `newer` comes first, and then the first listed.
        mine = sorted((row for row in newer + older if row[0] == number), key=lambda row: -row[2])
        rated = [row[1] for row in mine if not math.isnan(row[1])]
        expected.append((number, rated[0] if rated else "unrated", mine[0][2]))
    assert rows_of(merged) == sorted(expected, key=lambda row: (-row[2], -row[0]))


@given(rows=events)
def test_merging_with_what_was_merged_changes_nothing(rows):
    """A client that repeats itself is not punished."""
    once = merge(watched(rows), watched([]))

    assert rows_of(merge(watched(rows), once)) == rows_of(once)
