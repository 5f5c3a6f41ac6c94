"""Metrics give the values that one can work out by hand, and those of a slow computation."""

import math

import numpy as np
import pytest
import torch

from trainer.metrics import coverage, exposures, gini, mae, mrr_at_k, mse, ndcg_at_k, recall_at_k, rmse
from trainer.ranking import best_movies


def test_errors_of_ratings() -> None:
    """Errors of 1, 1 and 2 stars: rmse √2, mae 4/3."""
    predicted, actual = np.array([1, 4, 5.0]), np.array([2, 3, 3.0])

    assert rmse(predicted, actual) == pytest.approx(math.sqrt(2))
    assert mse(predicted, actual) == pytest.approx(2)
    assert mae(predicted, actual) == pytest.approx(4 / 3)


def test_nothing_to_judge_is_not_a_number() -> None:
    """No rows is not a perfect score."""
    none = np.zeros(0)

    assert math.isnan(rmse(none, none))
    assert math.isnan(mae(none, none))
    assert math.isnan(ndcg_at_k(np.zeros((0, 10), bool), np.zeros(0, int)))
    assert math.isnan(recall_at_k(np.zeros((0, 10), bool), np.zeros(0, int)))


def test_one_relevant_movie_is_discounted_by_its_rank() -> None:
    """At rank 1 it is worth 1, at rank 3 half, unlisted nothing."""
    hits = np.array([[1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 0]], bool)

    assert ndcg_at_k(hits, np.array([1, 1, 1])) == pytest.approx((1 + 0.5 + 0) / 3)
    assert recall_at_k(hits, np.array([1, 1, 1])) == pytest.approx(2 / 3)


def test_a_list_that_could_not_be_better_scores_one() -> None:
    """Also where there are more relevant movies than places, or fewer."""
    hits = np.array([[1, 1, 1], [1, 0, 0]], bool)

    assert ndcg_at_k(hits, np.array([50, 1])) == pytest.approx(1)
    assert recall_at_k(hits, np.array([50, 1])) == pytest.approx(1)


def test_several_relevant_movies() -> None:
    """Hits at ranks 1 and 4 of three relevant ones, worked out by hand."""
    hits = np.array([[1, 0, 0, 1]], bool)
    expected = (1 + 1 / math.log2(5)) / (1 + 1 / math.log2(3) + 1 / 2)

    assert ndcg_at_k(hits, np.array([3])) == pytest.approx(expected)
    assert recall_at_k(hits, np.array([3])) == pytest.approx(2 / 3)


def test_ties_go_to_the_smaller_number() -> None:
    """Also where more movies tie for the last place than fit."""
    scores = torch.tensor([[1.0, 3.0, 2.0, 2.0, 2.0], [0.0, 0.0, 0.0, 0.0, 0.0]])

    assert best_movies(scores, 3).tolist() == [[1, 2, 3], [0, 1, 2]]


def test_excluded_movies_are_never_listed() -> None:
    """A list is padded rather than filled with what must not stand in it."""
    scores = torch.tensor([[-torch.inf, 5.0, -torch.inf], [-torch.inf] * 3])

    assert best_movies(scores, 2).tolist() == [[1, -1], [-1, -1]]


def test_lists_longer_than_the_catalogue_are_padded() -> None:
    """And no user, or no movie, is no list."""
    assert best_movies(torch.tensor([[1.0, 2.0]]), 4).tolist() == [[1, 0, -1, -1]]
    assert best_movies(torch.zeros(0, 3), 2).shape == (0, 2)
    assert best_movies(torch.zeros(2, 0), 2).tolist() == [[-1, -1], [-1, -1]]


def test_lists_equal_a_full_sort() -> None:
    """On random scores with many ties."""
    scores = torch.from_numpy(np.random.default_rng(0).integers(0, 6, (50, 40)).astype(np.float32))

    expected = np.argsort(-scores.numpy(), axis=1, kind="stable")[:, :10]

    assert best_movies(scores, 10).tolist() == expected.tolist()


def test_the_reciprocal_rank_looks_at_the_first_relevant_movie_only() -> None:
    """First at rank 1, first at rank 3 with another behind it, none: 1, 1/3 and 0."""
    hits = np.array([[1, 0, 0, 0], [0, 0, 1, 1], [0, 0, 0, 0]], bool)

    assert mrr_at_k(hits) == pytest.approx((1 + 1 / 3 + 0) / 3)
    assert math.isnan(mrr_at_k(np.zeros((0, 10), bool)))


def test_coverage_counts_movies_and_not_places() -> None:
    """Two of four movies stand in lists, one of them in both; padding is no movie."""
    counts = exposures(np.array([[2, 0], [2, -1]]), 4)

    assert counts.tolist() == [1, 0, 2, 0]
    assert coverage(counts) == 0.5
    assert math.isnan(coverage(np.zeros(0, int)))


def test_gini_is_nought_for_equal_shares_and_nears_one_for_a_single_movie() -> None:
    """All equal: 0. All to one of four: 3/4. Shares 1, 2, 3 and 4 of 10: the mean difference of pairs, 1/4."""
    four = np.array([1, 2, 3, 4])
    by_pairs = np.abs(four[:, None] - four[None, :]).mean() / (2 * four.mean())

    assert gini(np.array([3, 3, 3, 3])) == pytest.approx(0)
    assert gini(np.array([0, 0, 8, 0])) == pytest.approx(0.75)
    assert gini(four) == pytest.approx(by_pairs) == pytest.approx(0.25)
    assert math.isnan(gini(np.zeros(4, int)))
