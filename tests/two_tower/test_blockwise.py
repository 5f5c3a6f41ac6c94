"""Ranking block by block gives the lists of a plain sort, to the last bit, however the movies fall into blocks."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from two_tower.blockwise import BlockwiseScorer
from two_tower.narrow_movies import NarrowMovies
from two_tower.permitted import Permitted
from two_tower.top_k import MovieMatrix, NumpyScorer, TorchScorer


def asked(rng, num_rows, num_movies, dimensions, levels, num_masks, num_excluded, bias_scale=1.0):
    """Users, movies and permissions at random; multiples of powers of two, so that many scores are equal."""

    def drawn(*shape):
        return torch.from_numpy(rng.integers(-levels, levels + 1, shape).astype(np.float32) / levels)

    excluded = rng.integers(0, num_movies, num_rows * num_excluded)
    return (
        drawn(num_rows, dimensions),
        MovieMatrix.of(drawn(num_movies, dimensions), bias_scale * drawn(num_movies)),
        Permitted(
            rng.random((num_masks, num_movies)) < rng.random((num_masks, 1)),
            rng.integers(0, num_masks, num_rows),
            np.repeat(np.arange(num_rows), num_excluded),
            excluded,
        ),
    )


def everything(num_rows, num_movies):
    """No filter, and nothing seen."""
    none = np.zeros(0, np.int64)
    return Permitted(np.ones((1, num_movies), np.bool_), np.zeros(num_rows, np.int64), none, none)


def assert_same(found, expected):
    assert [row.numbers.tolist() for row in found] == [row.numbers.tolist() for row in expected]
    assert [row.scores.tolist() for row in found] == [row.scores.tolist() for row in expected]


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    num_rows=st.integers(1, 20),
    num_movies=st.integers(256, 3000),
    levels=st.sampled_from([1, 4, 1024, 100_003]),
    num_masks=st.integers(1, 4),
    num_excluded=st.sampled_from([0, 3, 400]),
    bias_scale=st.sampled_from([2.0**-10, 1.0, 2.0**10]),
)
def test_lists_are_those_of_the_plain_scorer(seed, num_rows, num_movies, levels, num_masks, num_excluded, bias_scale):
    """For any filters, seen movies, lengths, ties and biases, by float32 and by bfloat16 products."""
    rng = np.random.default_rng(seed)
    users, movies, permitted = asked(rng, num_rows, num_movies, 8, levels, num_masks, num_excluded, bias_scale)
    ks = rng.integers(1, num_movies // 128 + 1, num_rows).tolist()
    expected = TorchScorer().rank(users, movies, ks, permitted)

    assert_same(BlockwiseScorer().rank(users, movies, ks, permitted), expected)
    assert_same(BlockwiseScorer().rank(users, movies.narrowed(), ks, permitted), expected)


@pytest.mark.parametrize("is_narrow", [False, True])
def test_catalogues_of_several_slabs_are_ranked_as_one(is_narrow):
    """More scores than are held at once, with a last slab of less than a block, and the best movie in it."""
    rng = np.random.default_rng(1)
    users, movies, permitted = asked(rng, 64, 210_007, 4, 1024, 2, 50)
    movies.vectors[-1] = 4 * users[3]
    movies = MovieMatrix.of(movies.vectors, movies.biases)
    if is_narrow:
        movies = movies.narrowed()

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


def test_movies_that_bfloat16_cannot_tell_apart_are_told_apart():
    """Their scores differ by less than its steps, all of them may be the best, and the list is as ever."""
    rng = np.random.default_rng(4)
    vectors = torch.ones(5000, 64) + torch.from_numpy(rng.random((5000, 64), np.float32)) * 2**-12
    movies = MovieMatrix.of(vectors, torch.full((5000,), 3.0)).narrowed()
    users = torch.from_numpy(rng.standard_normal((12, 64), np.float32))
    permitted = everything(12, 5000)
    assert len(np.unique(movies.narrow.vectors.float().numpy(), axis=0)) == 1

    found = BlockwiseScorer().rank(users, movies, [10] * 12, permitted)

    assert_same(found, TorchScorer().rank(users, movies, [10] * 12, permitted))


def test_rounded_products_are_as_near_the_true_scores_as_was_told():
    """For vectors and biases of any size; and the bound is no wider than a hundredth of what scores may be."""
    rng = np.random.default_rng(5)
    for size, bias in ((1.0, 1.0), (1e4, 1e-3), (1e-4, 1e4)):
        vectors = torch.from_numpy(size * rng.standard_normal((3000, 32)).astype(np.float32))
        biases = torch.from_numpy(bias * rng.standard_normal(3000).astype(np.float32))
        users = torch.from_numpy(rng.standard_normal((20, 32)).astype(np.float32))
        narrow = NarrowMovies.of(vectors, biases)

        rounded, errors = narrow.round_users(users)

        products = rounded.double() @ narrow.vectors.double().T  # [B, M]
        true = users.double() @ vectors.double().T + biases.double()  # [B, M]
        assert ((products - true).abs().amax(dim=-1).numpy() <= errors).all()
        longest = users.norm(dim=-1).max() * vectors.norm(dim=-1).max() + biases.abs().max()
        assert errors.max() < 0.01 * longest


H, E = 2.0**-8, 2.0**-12
"""Half a step of bfloat16 between 1 and 2, and much less than that."""


@pytest.mark.parametrize(
    ("user", "better", "worse"),
    [
        # All coordinates of one movie are rounded down and all of the other up, nearly as far as can be.
        ([1.0] * 4, ([1 + H - E, 1 + H - E, 1 + H - E, 1 + 3 * H - E], -4.0), ([1 + H + E] * 4, -4.0)),
        # Those of the user are, and each movie looks at one of them.
        ([1 + H - E, 1 + H + E], ([1.0, 0.0], 3 * E - 1), ([0.0, 1.0], -1.0)),
        # The biases are, in what their two parts leave out.
        ([1.0] * 3, ([-16, -1 / 16, 0.0], 16 + (1 + H - E) / 16), ([-16, -1 / 16, -E / 4], 16 + (1 + H + E) / 16)),
        # The sums, a little to either side of where bfloat16 rounds, are rounded away from each other as well.
        ([1.0], ([1 + H - E], 16 + 63 / 1024), ([1 + H + E], 16 + 57 / 1024)),
    ],
    ids=["movies", "user", "biases", "sums"],
)
def test_the_better_movie_wins_although_bfloat16_has_it_far_behind(user, better, worse):
    """Nothing less than the whole margin keeps it among the candidates."""
    (best, best_bias), (next_best, next_bias) = better, worse
    vectors, biases = torch.zeros(600, len(user)), torch.full((600,), -100.0)
    vectors[500], biases[500] = torch.tensor(best), best_bias
    vectors[70], biases[70] = torch.tensor(next_best), next_bias
    movies = MovieMatrix.of(vectors, biases).narrowed()

    [found] = BlockwiseScorer().rank(torch.tensor([user]), movies, [1], everything(1, 600))

    assert found.numbers.tolist() == [500]


def test_sums_of_exact_products_are_allowed_for():
    """Where nothing is rounded, an error of a unit in the last place of float32 for each term is reckoned with."""
    vectors = torch.ones(300, 62)

    _, errors = NarrowMovies.of(vectors, torch.zeros(300)).round_users(torch.ones(1, 62))

    assert errors[0] >= 64 * 2.0**-23 * 62


@pytest.mark.parametrize(
    ("user_size", "movie_size", "bias_size"),
    [
        (1, 1e30, 1),
        (3.4e38, 0.01, 1),
        (1, 1, 3.4e38),
        (1e-20, 1e-17, 0),
        (1e-20, 1e-18, 0),
        (1e-39, 1e30, 0),
        (1e-39, 1, 1e-42),
    ],
)
def test_lists_of_very_large_and_very_small_numbers_are_those_of_the_plain_scorer(user_size, movie_size, bias_size):
    """Where bounds overflow or products vanish, what cannot be told apart is a candidate."""
    rng = np.random.default_rng(6)
    users, vectors = rng.uniform(-1, 1, (12, 16)) * user_size, rng.uniform(-1, 1, (3000, 16)) * movie_size
    biases = rng.uniform(-1, 1, 3000) * bias_size
    users[:, 0], biases[:20] = user_size, bias_size
    movies = MovieMatrix.of(torch.from_numpy(vectors).float(), torch.from_numpy(biases).float())
    asked_for = torch.from_numpy(users).float()
    expected = NumpyScorer().rank(asked_for, movies, [10] * 12, everything(12, 3000))

    assert_same(BlockwiseScorer().rank(asked_for, movies, [10] * 12, everything(12, 3000)), expected)
    assert_same(BlockwiseScorer().rank(asked_for, movies.narrowed(), [10] * 12, everything(12, 3000)), expected)


@pytest.mark.parametrize("num_rows", [0, 600])
def test_any_number_of_users_is_ranked(num_rows):
    """None, and more than are ranked at once."""
    users, movies, permitted = asked(np.random.default_rng(7), num_rows, 4000, 8, 1024, 2, 20)

    found = BlockwiseScorer().rank(users, movies.narrowed(), [15] * num_rows, permitted)

    assert len(found) == num_rows
    assert_same(found, NumpyScorer().rank(users, movies, [15] * num_rows, permitted))
