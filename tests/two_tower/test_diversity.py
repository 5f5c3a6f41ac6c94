"""Maximal marginal relevance against a list worked out by hand and against the definition."""

import numpy as np
import pytest

from two_tower.diversity import diversify, intra_list_similarity, pool_size


def test_the_first_movie_is_the_best_and_the_second_another():
    """Two films of a kind score 1 and .9, another kind .5 and 0: at .5 the second kind comes second."""
    scores = np.array([1.0, 0.9, 0.5, 0.0], np.float32)
    vectors = np.array([[1, 0], [1, 0], [0, 1], [0, 1]], np.float32)

    taken = [diversify(scores, vectors, 4, diversity).tolist() for diversity in (0.0, 0.2, 0.5, 1.0)]

    assert taken == [[0, 1, 2, 3], [0, 1, 2, 3], [0, 2, 1, 3], [0, 2, 1, 3]]


def test_it_is_the_definition():
    """Step by step the largest (1 - d) relevance - d largest cosine, of what is left."""
    rng = np.random.default_rng(0)
    scores = np.sort(rng.normal(size=40).astype(np.float32))[::-1]
    vectors = rng.normal(size=(40, 8)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=-1, keepdims=True)
    relevance = (scores - scores.min()) / (scores.max() - scores.min())
    expected = []
    for _ in range(15):
        nearest = [max((vectors[n] @ vectors[t] for t in expected), default=0.0) for n in range(40)]
        worth = [-np.inf if n in expected else 0.7 * relevance[n] - 0.3 * nearest[n] for n in range(40)]
        expected.append(int(np.argmax(worth)))

    assert diversify(scores, vectors, 15, 0.3).tolist() == expected


def test_equal_scores_and_short_pools_are_no_error():
    """Where all score alike similarity decides; fewer are taken where there are fewer."""
    vectors = np.array([[1, 0], [1, 0], [0, 1]], np.float32)

    assert diversify(np.ones(3, np.float32), vectors, 5, 0.5).tolist() == [0, 2, 1]
    assert diversify(np.ones(0, np.float32), np.zeros((0, 2), np.float32), 5, 0.5).tolist() == []


@pytest.mark.parametrize(("k", "size"), [(1, 200), (20, 200), (50, 500), (100, 1000), (500, 1000)])
def test_the_pool_is_bounded(k, size):
    """Ten candidates for each movie wanted, within what a service can compute."""
    assert pool_size(k) == size


def test_the_similarity_of_a_list_is_the_mean_cosine_of_its_pairs():
    """Of three movies, two alike: one pair of three."""
    assert intra_list_similarity(np.array([[1, 0], [1, 0], [0, 1]], np.float32)) == pytest.approx(1 / 3)
    assert np.isnan(intra_list_similarity(np.ones((1, 2), np.float32)))
