"""Lists with a filter, over many movies: as good as the recall that is wanted, wherever what is allowed lies."""

import numpy as np
import pytest
import torch

from model_service.faiss_index import FaissIndex
from model_service.gathering_scorer import GatheringScorer
from model_service.indexed_scorer import IndexedScorer
from two_tower.permitted import Permitted
from two_tower.top_k import MovieMatrix, NumpyScorer, TorchScorer

NUM_MOVIES = 60_000
DIMENSIONS = 16
NUM_POINTS = 240
NUM_USERS = 128
MIN_RECALL = 0.95
NONE = np.zeros(0, np.int64)


@pytest.fixture(scope="module")
def point_of_movie():
    return np.random.default_rng(1).integers(0, NUM_POINTS, NUM_MOVIES)


def gathered(points, rng):
    """Vectors around some of the points that all share."""
    where = np.random.default_rng(0).standard_normal((NUM_POINTS, DIMENSIONS)).astype(np.float32)
    return where[points] + 0.5 * rng.standard_normal((len(points), DIMENSIONS)).astype(np.float32)


def users_around(rng):
    return gathered(rng.integers(0, NUM_POINTS, NUM_USERS), rng)


@pytest.fixture(scope="module")
def movies(point_of_movie):
    rng = np.random.default_rng(2)
    biases = 0.3 * rng.standard_normal(NUM_MOVIES).astype(np.float32)
    return MovieMatrix.of(torch.from_numpy(gathered(point_of_movie, rng)), torch.from_numpy(biases))


@pytest.fixture(scope="module")
def index(movies):
    rng = np.random.default_rng(3)
    return FaissIndex.build(movies, users_around(rng), MIN_RECALL, rng)


@pytest.fixture(scope="module")
def users():
    return torch.from_numpy(users_around(np.random.default_rng(4)))


@pytest.fixture
def scorer(index, movies):
    return IndexedScorer(index, movies, NONE, TorchScorer())


def permit(mask, num_rows, num_seen=0):
    rng = np.random.default_rng(5)
    seen = [rng.choice(len(mask), num_seen, replace=False) for _ in range(num_rows)]
    owners = np.repeat(np.arange(num_rows), num_seen)
    return Permitted(mask[None], np.zeros(num_rows, np.int64), owners, np.concatenate([NONE, *map(np.sort, seen)]))


def recall(found, truth):
    return np.mean(
        [len(np.intersect1d(a.numbers, b.numbers)) / len(b.numbers) for a, b in zip(found, truth, strict=True)]
    )


@pytest.mark.parametrize("num_points", [48, 80, 120])
@pytest.mark.parametrize(("k", "num_seen"), [(10, 0), (10, 100), (100, 0)])
def test_the_recall_holds_for_movies_that_lie_far_from_most_users(
    scorer, movies, users, point_of_movie, num_points, k, num_seen
):
    """The groups nearest to a user hold few of them: a fifth, a third or half of all lie around other points."""
    permitted = permit(point_of_movie < num_points, NUM_USERS, num_seen)

    found = scorer.rank(users, movies, [k] * NUM_USERS, permitted)

    truth = TorchScorer().rank(users, movies, [k] * NUM_USERS, permitted)
    assert recall(found, truth) >= MIN_RECALL - 0.02
    assert scorer.num_exact == 0
    assert all(len(row.numbers) == k for row in found)
    assert all(permitted.of_row(row)[each.numbers].all() for row, each in enumerate(found))


@pytest.mark.parametrize("share", [0.3, 0.5, 0.9])
def test_the_recall_holds_for_movies_that_lie_anywhere(scorer, movies, users, share):
    """As a range of years may."""
    permitted = permit(np.random.default_rng(6).random(NUM_MOVIES) < share, NUM_USERS, 40)

    found = scorer.rank(users, movies, [20] * NUM_USERS, permitted)

    truth = TorchScorer().rank(users, movies, [20] * NUM_USERS, permitted)
    assert recall(found, truth) >= MIN_RECALL - 0.02
    assert scorer.num_exact == 0


def test_the_recall_holds_where_all_that_is_best_is_barred(scorer, movies, users):
    """A hundredth of the movies is, those with the highest scores for anybody."""
    best = np.concatenate([np.argsort(-(users.numpy() @ movies.vectors.numpy().T), axis=-1)[:, :20]])
    mask = np.ones(NUM_MOVIES, np.bool_)
    mask[best.ravel()] = False
    permitted = permit(mask, NUM_USERS)

    found = scorer.rank(users, movies, [10] * NUM_USERS, permitted)

    truth = TorchScorer().rank(users, movies, [10] * NUM_USERS, permitted)
    assert recall(found, truth) >= MIN_RECALL - 0.02
    assert scorer.num_exact == 0


def test_a_row_with_a_filter_is_answered_alike_alone_and_in_a_batch(scorer, movies, users, point_of_movie):
    """Whoever else is looked up with it."""
    mask = point_of_movie < 80
    together = scorer.rank(users, movies, [10] * NUM_USERS, permit(mask, NUM_USERS))

    for row in range(NUM_USERS):
        [alone] = scorer.rank(users[row : row + 1], movies, [10], permit(mask, 1))
        assert alone.numbers.tolist() == together[row].numbers.tolist()
        assert alone.scores.tolist() == together[row].scores.tolist()


def test_a_filter_may_let_nothing_through_that_the_index_knows(index, movies, users):
    """Only new movies: they are ranked beside it until it is built anew."""
    num_new = 20_000
    new = gathered(np.random.default_rng(8).integers(0, NUM_POINTS, num_new), np.random.default_rng(9))
    vectors = torch.cat([movies.vectors, torch.from_numpy(new)])
    grown = MovieMatrix.of(vectors, torch.cat([movies.biases, torch.zeros(num_new)]))
    mask = np.arange(NUM_MOVIES + num_new) >= NUM_MOVIES
    permitted = permit(mask, 3)

    found = IndexedScorer(index, grown, index.stale(grown), TorchScorer()).rank(users[:3], grown, [10] * 3, permitted)

    truth = TorchScorer().rank(users[:3], grown, [10] * 3, permitted)
    assert [row.numbers.tolist() for row in found] == [row.numbers.tolist() for row in truth]


def test_few_groups_are_looked_at_for_a_filter(index, users, point_of_movie):
    """Only such as hold something that it lets through, and of these a part."""
    mask = point_of_movie < 80
    groups = index.groups
    counts = groups.counts(mask)
    asked = np.column_stack([users.numpy(), np.ones(NUM_USERS), np.zeros(NUM_USERS)]).astype(np.float32)

    chosen, _ = groups.choose(asked[:, : groups.centroids.shape[-1]], 10, 0.98, counts)

    assert (counts[chosen[chosen >= 0]] > 0).all()
    assert np.count_nonzero(chosen >= 0) / NUM_USERS < np.count_nonzero(counts) / 2


@pytest.mark.parametrize("exact", [TorchScorer(), NumpyScorer()])
@pytest.mark.parametrize("num_allowed", [0, 3, 2000])
def test_few_movies_are_ranked_by_themselves_as_among_all(movies, users, exact, num_allowed):
    """To the last bit, with what each has seen left out, and fewer than are wanted where no more are allowed."""
    mask = np.zeros(NUM_MOVIES, np.bool_)
    mask[np.random.default_rng(7).choice(NUM_MOVIES, num_allowed, replace=False)] = True
    permitted = Permitted(mask[None], np.zeros(3, np.int64), np.array([0, 0, 2]), np.array([5, 7, 9]))
    if num_allowed:
        permitted.excluded_numbers[:2] = np.flatnonzero(mask)[:2]

    found = GatheringScorer(exact).rank(users[:3], movies, [10, 1, 50], permitted)

    truth = exact.rank(users[:3], movies, [10, 1, 50], permitted)
    assert [row.numbers.tolist() for row in found] == [row.numbers.tolist() for row in truth]
    assert [row.scores.tolist() for row in found] == [row.scores.tolist() for row in truth]


def test_few_movies_are_never_searched_with_all(movies, users):
    """What ranks them is given no more than are allowed."""
    sizes = []

    class Seen(TorchScorer):
        def rank(self, users, movies, ks, permitted):
            sizes.append(len(movies.vectors))
            return super().rank(users, movies, ks, permitted)

    few = np.arange(NUM_MOVIES) % 30 == 0
    both = Permitted(np.stack([few, ~few]), np.array([0, 1, 0]), NONE, NONE)

    GatheringScorer(Seen()).rank(users[:3], movies, [5] * 3, both)

    assert sizes == [np.count_nonzero(few), NUM_MOVIES]
