"""Top-k and pair scores against answers known by hand and against a brute force; both implementations, every device."""

from itertools import permutations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from two_tower.permitted import Permitted
from two_tower.top_k import MovieMatrix, NumpyScorer, TorchScorer

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]


@pytest.fixture(params=[(kind, device) for kind in (NumpyScorer, TorchScorer) for device in DEVICES], ids=str)
def scoring(request):
    kind, device = request.param
    return kind(), device


def matrix_of(vectors, biases, device="cpu"):
    return MovieMatrix.of(
        torch.tensor(vectors, dtype=torch.float32, device=device),
        torch.tensor(biases, dtype=torch.float32, device=device),
    )


def users_of(vectors, device="cpu"):
    return torch.tensor(vectors, dtype=torch.float32, device=device)


def permit_all(num_rows, num_movies, excluded=None):
    excluded = excluded or [np.zeros(0, np.int64)] * num_rows
    return Permitted(
        np.ones((1, num_movies), np.bool_),
        np.zeros(num_rows, np.int64),
        np.repeat(np.arange(num_rows), [len(numbers) for numbers in excluded]),
        np.concatenate(excluded),
    )


def test_the_best_movies_stand_first(scoring):
    """A score is the dot product plus the movie's bias: 2·1+0, 2·2-1 and 2·0+2.5."""
    scorer, device = scoring
    movies = matrix_of([[1.0, 9.0], [2.0, 9.0], [0.0, 9.0]], [0.0, -1.0, 2.5], device)

    [ranked] = scorer.rank(users_of([[2.0, 0.0]], device), movies, [3], permit_all(1, 3))

    assert ranked.numbers.tolist() == [1, 2, 0]
    assert ranked.scores.tolist() == [3.0, 2.5, 2.0]


def test_equal_scores_stand_by_catalogue_number(scoring):
    """Also when only some of the equal ones are wanted, and whatever their place in the matrix."""
    scorer, device = scoring
    rng = np.random.default_rng(0)
    movies = matrix_of(np.repeat(rng.normal(size=(1, 37)), 501, axis=0), [0.3] * 501, device)
    users = users_of(rng.normal(size=(3, 37)), device)

    ranked = scorer.rank(users, movies, [1, 500, 7], permit_all(3, 501))

    assert [row.numbers.tolist() for row in ranked] == [list(range(k)) for k in (1, 500, 7)]


def test_rounding_decides_nothing(scoring):
    """In float32 these vectors score 0 or 1, as the order of summing has it; they all score 1, and so tie."""
    scorer, device = scoring
    vectors = list(permutations([1e8, 1.0, -1e8]))

    for turn in range(len(vectors)):
        movies = matrix_of(vectors[turn:] + vectors[:turn], [0.0] * len(vectors), device)
        for k in range(1, len(vectors) + 1):
            [ranked] = scorer.rank(users_of([[1.0, 1.0, 1.0]], device), movies, [k], permit_all(1, len(vectors)))

            assert ranked.numbers.tolist() == list(range(k))
            assert ranked.scores.tolist() == [1.0] * k


def test_fewer_are_answered_only_if_fewer_pass(scoring):
    """What is masked is never answered, not even to fill the list."""
    scorer, device = scoring
    movies = matrix_of([[3.0], [2.0], [1.0]], [0.0] * 3, device)
    excluded = [np.array([0]), np.array([0, 1, 2]), np.array([], np.int64)]

    ranked = scorer.rank(users_of([[1.0]] * 3, device), movies, [5, 5, 2], permit_all(3, 3, excluded))

    assert [row.numbers.tolist() for row in ranked] == [[1, 2], [], [0, 1]]


@pytest.mark.parametrize("num_movies", [0, 4])
def test_a_catalogue_with_nothing_to_offer_gives_empty_lists(scoring, num_movies):
    """Neither an empty catalogue nor a mask without a movie is an error."""
    scorer, device = scoring
    movies = matrix_of(np.ones((num_movies, 2)), np.zeros(num_movies), device)
    everything = [np.arange(num_movies)]

    [ranked] = scorer.rank(users_of([[1.0, 1.0]], device), movies, [3], permit_all(1, num_movies, everything))

    assert ranked.numbers.tolist() == []


def test_pairs_are_scored_in_their_order(scoring):
    """Pair p is its user times its movie, plus the movie's bias."""
    scorer, device = scoring
    movies = matrix_of([[1.0], [10.0]], [0.5, 0.25], device)

    scores = scorer.score_pairs(
        users_of([[1.0], [2.0]], device), movies, np.array([1, 0, 1]), np.array([1, 1, 0], np.int64)
    )

    assert scores.tolist() == [20.25, 10.25, 2.5]


def test_the_score_that_ranks_is_the_score_of_the_pair(scoring):
    """PredictRating and TopK tell the same story to the last bit."""
    scorer, device = scoring
    rng = np.random.default_rng(1)
    movies = matrix_of(rng.normal(size=(50, 16)), rng.normal(size=50), device)
    users = users_of(rng.normal(size=(1, 16)), device)

    [ranked] = scorer.rank(users, movies, [50], permit_all(1, 50))
    pairs = scorer.score_pairs(users, movies, np.zeros(50, np.int64), ranked.numbers)

    assert pairs.tolist() == ranked.scores.tolist()


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    num_rows=st.integers(1, 40),
    num_movies=st.integers(1, 300),
    dimensions=st.sampled_from([1, 3, 64]),
    levels=st.sampled_from([2, 4, 1024]),
)
@pytest.mark.parametrize("kind", [NumpyScorer, TorchScorer])
@pytest.mark.parametrize("device", DEVICES)
def test_top_k_equals_a_brute_force(kind, device, seed, num_rows, num_movies, dimensions, levels):
    """For any masks, any k and many ties the answer is what sorting everything in float64 gives."""
    rng = np.random.default_rng(seed)
    # Multiples of powers of two: their products and sums are exact in whatever order they are added up.
    vectors = rng.integers(-levels, levels + 1, (num_movies, dimensions)).astype(np.float32) / levels
    biases = rng.integers(-levels, levels + 1, num_movies).astype(np.float32) / levels
    users = rng.integers(-levels, levels + 1, (num_rows, dimensions)).astype(np.float32) / levels
    excluded = [np.flatnonzero(rng.random(num_movies) < rng.random()) for _ in range(num_rows)]
    ks = rng.integers(1, 60, num_rows).tolist()

    ranked = kind().rank(
        users_of(users, device), matrix_of(vectors, biases, device), ks, permit_all(num_rows, num_movies, excluded)
    )

    truth = ((users[:, None, :].astype(np.float64) * vectors).sum(-1) + biases).astype(np.float32)
    for row, k in enumerate(ks):
        allowed = np.setdiff1d(np.arange(num_movies), excluded[row])
        expected = sorted(allowed.tolist(), key=lambda number: (-truth[row, number], number))[:k]
        assert ranked[row].numbers.tolist() == expected
        assert ranked[row].scores.tolist() == truth[row, expected].tolist()


def test_a_batch_equals_its_rows_one_by_one(scoring):
    """The other rows of a batch change nothing, not a bit."""
    scorer, device = scoring
    rng = np.random.default_rng(2)
    movies = matrix_of(rng.normal(size=(700, 96)), rng.normal(size=700), device)
    users = users_of(rng.normal(size=(33, 96)), device)
    ks = rng.integers(1, 100, 33).tolist()
    excluded = [rng.choice(700, 300, replace=False) for _ in range(33)]

    together = scorer.rank(users, movies, ks, permit_all(33, 700, excluded))

    for row in range(33):
        [alone] = scorer.rank(users[row : row + 1], movies, [ks[row]], permit_all(1, 700, [excluded[row]]))
        assert alone.numbers.tolist() == together[row].numbers.tolist()
        assert alone.scores.tolist() == together[row].scores.tolist()


def test_cosines_have_length_one_and_no_bias():
    """A movie of which nothing is known is near to nothing."""
    cosines = matrix_of([[3.0, 4.0], [0.0, 0.0]], [7.0, 7.0]).cosines()

    assert cosines.vectors.tolist() == [[pytest.approx(0.6), pytest.approx(0.8)], [0.0, 0.0]]
    assert cosines.biases.tolist() == [0.0, 0.0]
