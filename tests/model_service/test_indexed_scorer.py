"""Lists from an index: they differ from exact ones in what the index did not find, and in nothing else."""

import numpy as np
import pytest
import torch

from model_service.faiss_index import FaissIndex
from model_service.indexed_scorer import IndexedScorer, Look, UnreachableRecallError
from two_tower.permitted import Permitted
from two_tower.top_k import MovieMatrix, TorchScorer

NUM_MOVIES = 6000
DIMENSIONS = 16
NONE = np.zeros(0, np.int64)
MIN_RECALL = 0.95


def gathered(num, rng):
    """Vectors that gather around the same forty points."""
    points = np.random.default_rng(0).standard_normal((40, DIMENSIONS)).astype(np.float32)
    return points[rng.integers(0, 40, num)] + 0.5 * rng.standard_normal((num, DIMENSIONS)).astype(np.float32)


def matrix_of(vectors, biases):
    return MovieMatrix.of(torch.from_numpy(vectors), torch.from_numpy(biases.astype(np.float32)))


@pytest.fixture(scope="module")
def movies():
    rng = np.random.default_rng(1)
    return matrix_of(gathered(NUM_MOVIES, rng), 0.3 * rng.standard_normal(NUM_MOVIES))


@pytest.fixture(scope="module")
def index(movies):
    rng = np.random.default_rng(2)
    return FaissIndex.build(movies, gathered(128, rng), MIN_RECALL, rng)


@pytest.fixture(scope="module")
def users():
    return torch.from_numpy(gathered(60, np.random.default_rng(3)))


@pytest.fixture
def scorer(index, movies):
    return IndexedScorer(index, movies, NONE, TorchScorer())


def permit(masks, mask_of_row, excluded=None):
    excluded = excluded or [NONE] * len(mask_of_row)
    rows = np.repeat(np.arange(len(excluded)), [len(numbers) for numbers in excluded])
    return Permitted(np.stack(masks), np.asarray(mask_of_row), rows, np.concatenate(excluded))


def everything(num_rows, num_movies=NUM_MOVIES):
    return permit([np.ones(num_movies, np.bool_)], [0] * num_rows)


def recall(found, truth):
    return np.mean(
        [len(np.intersect1d(a.numbers, b.numbers)) / len(b.numbers) for a, b in zip(found, truth, strict=True)]
    )


def test_the_recall_measured_holds_for_users_it_was_not_measured_on(scorer, movies, users):
    """And no row was left to exact search for it."""
    found = scorer.rank(users, movies, [100] * 60, everything(60))
    truth = TorchScorer().rank(users, movies, [100] * 60, everything(60))

    assert recall(found, truth) > MIN_RECALL - 0.03
    assert scorer.num_exact == 0


def test_less_is_looked_at_than_everything(index):
    """Else it would be no index: the recall of the best hundred takes a part of the groups only."""
    assert index.reaches.depths[100].num_groups < NUM_MOVIES // 64 / 2


def test_scores_and_order_are_those_of_exact_lists(scorer, movies, users):
    """What is found has the score that it has everywhere, to the last bit, and stands by it."""
    found = scorer.rank(users, movies, [50] * 60, everything(60))
    alone = scorer.rank(users[7:8], movies, [50], everything(1))[0]

    for row, each in enumerate(found):
        exact = TorchScorer().score_pairs(users, movies, np.full(50, row), each.numbers)
        assert each.scores.tolist() == exact.tolist() == sorted(exact.tolist(), reverse=True)
    assert alone.numbers.tolist() == found[7].numbers.tolist()


def test_a_row_is_answered_alike_alone_and_in_a_batch(scorer, movies, users):
    """Whoever else is looked up with it, however much they have seen, and whatever they want."""
    rng = np.random.default_rng(7)
    excluded = [np.sort(rng.choice(NUM_MOVIES, rng.integers(0, 400), replace=False)) for _ in range(60)]
    ks = rng.choice([1, 10, 40], 60).tolist()
    together = scorer.rank(users, movies, ks, permit([np.ones(NUM_MOVIES, np.bool_)], [0] * 60, excluded))

    for row in range(60):
        mine = permit([np.ones(NUM_MOVIES, np.bool_)], [0], [excluded[row]])
        [alone] = scorer.rank(users[row : row + 1], movies, [ks[row]], mine)
        assert alone.numbers.tolist() == together[row].numbers.tolist()
        assert alone.scores.tolist() == together[row].scores.tolist()


def test_movies_with_equal_scores_stand_by_number(movies, users):
    """In whatever order the index proposes them."""

    class FindsThree:
        def look_for(self, k, num_excluded, num_allowed):
            return Look(1, 3, 3)

        def propose(self, users, look, allowed):
            return np.array([[9, 5, 7]] * len(users))

    same = matrix_of(np.ones((20, DIMENSIONS), np.float32), np.zeros(20))
    scorer = IndexedScorer(FindsThree(), same, NONE, TorchScorer())

    found = scorer.rank(users[:2], same, [2, 3], everything(2, 20))

    assert [each.numbers.tolist() for each in found] == [[5, 7], [5, 7, 9]]


def test_filters_and_exclusions_hold_and_lists_stay_full(scorer, movies, users):
    """Whether much passes or little: never a movie that may not be answered, never fewer than are wanted and pass."""
    rng = np.random.default_rng(4)
    masks = [np.ones(NUM_MOVIES, np.bool_), *(rng.random(NUM_MOVIES) < share for share in (0.5, 0.1, 0.004, 0.0))]
    places = rng.integers(0, len(masks), 60)
    excluded = [np.sort(rng.choice(NUM_MOVIES, rng.integers(0, 300), replace=False)) for _ in range(60)]
    permitted = permit(masks, places, excluded)
    ks = rng.integers(1, 120, 60).tolist()

    found = scorer.rank(users, movies, ks, permitted)

    truth = TorchScorer().rank(users, movies, ks, permitted)
    for row, (mine, true) in enumerate(zip(found, truth, strict=True)):
        assert len(mine.numbers) == len(true.numbers)
        assert permitted.of_row(row)[mine.numbers].all()
        assert len(set(mine.numbers.tolist())) == len(mine.numbers)
    assert recall([row for row in found if len(row.numbers)], [row for row in truth if len(row.numbers)]) > 0.95
    assert 0 < scorer.num_exact < 60


def test_what_is_deeper_than_was_measured_is_ranked_exactly(scorer, movies, users):
    """A list of two thousand movies, and a filter that lets a two-hundredth through, are those of the exact scorer."""
    narrow = np.arange(NUM_MOVIES) % 200 == 7
    permitted = permit([np.ones(NUM_MOVIES, np.bool_), narrow], [0, 1])

    found = scorer.rank(users[:2], movies, [2000, 20], permitted)

    truth = TorchScorer().rank(users[:2], movies, [2000, 20], permitted)
    assert [row.numbers.tolist() for row in found] == [row.numbers.tolist() for row in truth]
    assert scorer.num_exact == 2


def test_an_index_that_finds_too_few_is_not_believed(movies, users):
    """Rows for which it proposes fewer movies than are wanted are ranked exactly."""

    class FindsTwo:
        def look_for(self, k, num_excluded, num_allowed):
            return Look(1, 4, 4)

        def propose(self, users, look, allowed):
            return np.array([[9, 5, -1, -1]] * len(users))

    scorer = IndexedScorer(FindsTwo(), movies, NONE, TorchScorer())

    [two, three] = scorer.rank(users[:2], movies, [2, 3], everything(2))

    assert sorted(two.numbers.tolist()) == [5, 9]
    [_, exact] = TorchScorer().rank(users[:2], movies, [2, 3], everything(2))
    assert three.numbers.tolist() == exact.numbers.tolist()


def test_new_and_changed_movies_are_ranked_as_they_are_now(index, movies, users):
    """The index knows them not, or as they were: they are scored beside it, and stand first where they should."""
    vectors = np.concatenate([movies.vectors.numpy(), 3 * users[:1].numpy(), np.zeros((1, DIMENSIONS), np.float32)])
    vectors[17] = 2 * users[0].numpy()
    now = matrix_of(vectors, np.concatenate([movies.biases.numpy(), [0.0, 0.0]]))
    stale = index.stale(now)
    scorer = IndexedScorer(index, now, stale, TorchScorer())
    masks = [np.ones(NUM_MOVIES + 2, np.bool_), np.arange(NUM_MOVIES + 2) != 17]

    [first, filtered, seen] = scorer.rank(
        users[[0, 0, 0]], now, [10, 10, 10], permit(masks, [0, 1, 0], [NONE, NONE, np.array([NUM_MOVIES])])
    )

    assert stale.tolist() == [17, NUM_MOVIES, NUM_MOVIES + 1]
    assert first.numbers[:2].tolist() == [NUM_MOVIES, 17]
    assert filtered.numbers[0] == NUM_MOVIES
    assert 17 not in filtered.numbers
    assert seen.numbers[0] == 17
    assert NUM_MOVIES not in seen.numbers
    assert scorer.num_exact == 0


def test_another_order_of_summing_makes_no_movie_stale(index, movies):
    """A tower over a catalogue of another size gives the same vectors but for the last bits."""
    noise = 1 + 1e-6 * np.random.default_rng(5).standard_normal((NUM_MOVIES, DIMENSIONS))
    now = matrix_of((movies.vectors.numpy() * noise).astype(np.float32), movies.biases.numpy())

    assert index.stale(now).tolist() == []


def test_another_matrix_is_ranked_exactly(scorer, movies, users):
    """Similar movies are found by cosines, of which there is no index."""
    cosines = movies.cosines()

    found = scorer.rank(users[:3], cosines, [5] * 3, everything(3))

    truth = TorchScorer().rank(users[:3], cosines, [5] * 3, everything(3))
    assert [row.numbers.tolist() for row in found] == [row.numbers.tolist() for row in truth]


def test_a_recall_that_cannot_be_reached_gives_no_index():
    """Codes made for movies far apart cannot tell those in one spot apart, however many groups are looked at."""
    rng = np.random.default_rng(6)
    vectors = rng.standard_normal((NUM_MOVIES, DIMENSIONS)).astype(np.float32)
    vectors[::2] = 5 + 0.01 * vectors[::2]
    users = 1 + rng.standard_normal((16, DIMENSIONS)).astype(np.float32)

    with pytest.raises(UnreachableRecallError):
        FaissIndex.build(matrix_of(vectors, np.zeros(NUM_MOVIES)), users, MIN_RECALL, rng)
