"""What the host answers by itself is what a batch answers, to the last bit, however many pairs there are."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from two_tower.host_heads import HostHeads, HostUser
from two_tower.serving import RatingScale, UserEmbeddings
from two_tower.top_k import MovieMatrix, NumpyScorer

NUM_MOVIES, WIDTH = 300, 64
MODEL: Any = SimpleNamespace(rating_scale=RatingScale(1.0, 5.0, 1.0), link=lambda raw: raw)


def _matrix(rng: np.random.Generator) -> MovieMatrix:
    vectors = torch.from_numpy(rng.standard_normal((NUM_MOVIES, WIDTH), np.float32))
    return MovieMatrix.of(vectors, torch.from_numpy(rng.standard_normal(NUM_MOVIES, np.float32)))


def _users(heads: HostHeads, together: UserEmbeddings) -> list[HostUser]:
    apart = [
        UserEmbeddings(together.rating_vectors[row : row + 1], together.ranking_vectors[row : row + 1])
        for row in range(len(together.rating_vectors))
    ]
    return heads.users_of(apart, together)


@pytest.mark.parametrize("num_pairs", [1, 7, 131_072 // WIDTH, 131_072 // WIDTH + 1, 5000])
@pytest.mark.parametrize("num_users", [1, 20])
@pytest.mark.parametrize("is_one", [False, True], ids=["two heads", "one head"])
def test_many_pairs_are_rated_and_scored_as_in_a_batch(num_pairs: int, num_users: int, is_one: bool) -> None:
    """With as many as are summed at once, one more, and several times as many; by one matrix or by two."""
    rng = np.random.default_rng(num_pairs)
    ranking = _matrix(rng)
    rating = ranking if is_one else _matrix(rng)
    vectors = torch.from_numpy(rng.standard_normal((num_users, WIDTH), np.float32))
    together = UserEmbeddings(vectors if is_one else vectors.flip(-1), vectors)
    positions, numbers = rng.integers(0, num_users, num_pairs), rng.integers(0, NUM_MOVIES, num_pairs)
    heads = HostHeads(MODEL, rating, ranking)

    ratings, scores = heads.rate_and_score(_users(heads, together), positions, numbers)

    expected = NumpyScorer().score_pairs(together.ranking_vectors, ranking, positions, numbers)
    np.testing.assert_array_equal(scores, expected)
    raw = NumpyScorer().score_pairs(together.rating_vectors, rating, positions, numbers)
    np.testing.assert_array_equal(ratings, raw.clip(1, 5))


@pytest.mark.parametrize("is_one", [False, True], ids=["two heads", "one head"])
def test_a_list_has_the_ratings_that_its_pairs_have(is_one: bool) -> None:
    """Also where the score of a list is the rating before it is clipped, and is not summed a second time."""
    rng = np.random.default_rng(3)
    ranking = _matrix(rng)
    rating = ranking if is_one else _matrix(rng)
    vectors = torch.from_numpy(rng.standard_normal((1, WIDTH), np.float32))
    together = UserEmbeddings(vectors if is_one else vectors.flip(-1), vectors)
    heads = HostHeads(MODEL, rating, ranking)
    [user] = _users(heads, together)
    nothing = np.zeros(0, np.int64)

    ranked = heads.rank(user, 10, nothing, nothing)

    ratings, scores = heads.rate_and_score([user], np.zeros(10, np.int64), ranked.numbers)
    np.testing.assert_array_equal(heads.rate_ranked(user, ranked), ratings)
    np.testing.assert_array_equal(ranked.scores, scores)


@pytest.mark.parametrize("is_one", [False, True], ids=["two heads", "one head"])
def test_lists_made_together_are_those_made_one_by_one(is_one: bool) -> None:
    """Of several lengths, with movies that have equal vectors, and one that may hold nothing."""
    rng = np.random.default_rng(4)
    ranking = _matrix(rng)
    ranking.vectors[1::2] = ranking.vectors[::2]
    ranking.biases[1::2] = ranking.biases[::2]
    rating = ranking if is_one else _matrix(rng)
    vectors = torch.from_numpy(rng.standard_normal((5, WIDTH), np.float32))
    heads = HostHeads(MODEL, rating, ranking)
    users = _users(heads, UserEmbeddings(vectors if is_one else vectors.flip(-1), vectors))
    ks = [1, 7, NUM_MOVIES, 500, 10]
    barred, everything, nothing = rng.integers(0, NUM_MOVIES, 50), np.arange(NUM_MOVIES), np.zeros(0, np.int64)
    excluded = [(barred, nothing), (nothing, nothing), (barred, barred[:3]), (nothing,), (nothing, everything)]

    together = heads.rank_all(users, ks, excluded)

    for user, k, arrays, (ranked, ratings) in zip(users, ks, excluded, together, strict=True):
        alone = heads.rank(user, k, np.concatenate(arrays), nothing)
        np.testing.assert_array_equal(ranked.numbers, alone.numbers)
        np.testing.assert_array_equal(ranked.scores, alone.scores)
        np.testing.assert_array_equal(ratings, heads.rate_ranked(user, alone))
    assert [len(ranked.numbers) for ranked, _ in together[3:]] == [NUM_MOVIES, 0]


def test_a_model_without_a_scale_makes_lists_without_ratings() -> None:
    """Of data without ratings."""
    rng = np.random.default_rng(5)
    heads = HostHeads(SimpleNamespace(rating_scale=None), _matrix(rng), _matrix(rng))  # type: ignore[arg-type]
    vectors = torch.from_numpy(rng.standard_normal((2, WIDTH), np.float32))

    told = heads.rank_all(_users(heads, UserEmbeddings(vectors, vectors)), [3, 4], [(), ()])

    assert [(len(ranked.numbers), ratings) for ranked, ratings in told] == [(3, None), (4, None)]
