"""Ranking block by block gives the lists of a plain sort, to the last bit, however the movies fall into blocks."""

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from two_tower.blockwise import BlockwiseScorer
from two_tower.permitted import Permitted
from two_tower.top_k import MovieMatrix, TorchScorer


def asked(rng, num_rows, num_movies, dimensions, levels, num_masks, num_excluded):
    """Users, movies and permissions at random; multiples of powers of two, so that many scores are equal."""

    def drawn(*shape):
        return torch.from_numpy(rng.integers(-levels, levels + 1, shape).astype(np.float32) / levels)

    excluded = rng.integers(0, num_movies, num_rows * num_excluded)
    return (
        drawn(num_rows, dimensions),
        MovieMatrix.of(drawn(num_movies, dimensions), drawn(num_movies)),
        Permitted(
            rng.random((num_masks, num_movies)) < rng.random((num_masks, 1)),
            rng.integers(0, num_masks, num_rows),
            np.repeat(np.arange(num_rows), num_excluded),
            excluded,
        ),
    )


def assert_same(found, expected):
    assert [row.numbers.tolist() for row in found] == [row.numbers.tolist() for row in expected]
    assert [row.scores.tolist() for row in found] == [row.scores.tolist() for row in expected]


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    num_rows=st.integers(1, 20),
    num_movies=st.integers(256, 3000),
    levels=st.sampled_from([1, 4, 1024]),
    num_masks=st.integers(1, 4),
    num_excluded=st.sampled_from([0, 3, 400]),
)
def test_lists_are_those_of_the_plain_scorer(seed, num_rows, num_movies, levels, num_masks, num_excluded):
    """For any filters, seen movies, lengths and ties."""
    rng = np.random.default_rng(seed)
    users, movies, permitted = asked(rng, num_rows, num_movies, 8, levels, num_masks, num_excluded)
    ks = rng.integers(1, num_movies // 256 + 1, num_rows).tolist()

    found = BlockwiseScorer().rank(users, movies, ks, permitted)

    assert_same(found, TorchScorer().rank(users, movies, ks, permitted))


def test_catalogues_of_several_slabs_are_ranked_as_one():
    """More scores than are held at once, with a last slab of less than a block, and the best movie in it."""
    rng = np.random.default_rng(1)
    users, movies, permitted = asked(rng, 64, 210_007, 4, 1024, 2, 50)
    movies.vectors[-1] = 4 * users[3]

    found = BlockwiseScorer().rank(users, movies, [20] * 64, permitted)

    assert_same(found, TorchScorer().rank(users, movies, [20] * 64, permitted))


def test_longer_lists_than_blocks_hold_are_ranked_too():
    """They are no longer worth blocks, and the answer is the same."""
    users, movies, permitted = asked(np.random.default_rng(2), 5, 1000, 8, 4, 1, 10)

    found = BlockwiseScorer().rank(users, movies, [900, 1, 5, 30, 2], permitted)

    assert_same(found, TorchScorer().rank(users, movies, [900, 1, 5, 30, 2], permitted))


def test_nothing_permitted_gives_empty_lists():
    """A filter that nothing passes is no error."""
    users, movies, permitted = asked(np.random.default_rng(3), 2, 5000, 8, 4, 1, 0)
    permitted.masks[:] = False

    assert [len(row.numbers) for row in BlockwiseScorer().rank(users, movies, [3, 7], permitted)] == [0, 0]
