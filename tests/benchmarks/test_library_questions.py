"""What libraries are asked, and the settings they are given, rest on training rows only."""

from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from benchmarks.libraries.question import (
    Question,
    Reply,
    Stopwatch,
    best_unseen,
    ndcg_of_one,
    read_question,
    write_reply,
)


@pytest.fixture
def question() -> Question:
    """Three users; the third has a single row, and the second's newest row is not his last in the file."""
    return Question(
        train_users=np.array([0, 0, 1, 1, 1, 2], np.int32),
        train_movies=np.array([3, 1, 4, 2, 0, 1], np.int32),
        train_ratings=np.array([5, 4, 3, 2, 1, 5], np.float32),
        train_times_ms=np.array([1, 2, 9, 8, 7, 1]),
        test_users=np.array([0], np.int32),
        test_movies=np.array([2], np.int32),
        list_users=np.array([0], np.int32),
        num_users=3,
        num_movies=5,
        low=1.0,
        high=5.0,
        seed=0,
        ranks=3,
    )


def test_the_newest_training_row_of_each_user_is_held_back(question: Question) -> None:
    """Whoever has one row keeps it; rows of the test are not looked at."""
    rest, movies = question.hold_back()

    assert (rest.list_users.tolist(), movies.tolist()) == ([0, 1], [1, 4])
    pairs = zip(rest.train_users.tolist(), rest.train_movies.tolist(), strict=True)
    assert sorted(pairs) == [(0, 3), (1, 0), (1, 2), (2, 1)]


def test_lists_leave_out_what_was_seen_and_end_where_nothing_is_left(question: Question) -> None:
    """Padded with -1."""
    scores = np.array([[1.0, 9.0, 2.0, 8.0, 0.5], [1.0, 2.0, 3.0, 4.0, 5.0]])

    lists = best_unseen(scores, question.matrix()[:2], ranks=3)

    assert lists.tolist() == [[2, 0, 4], [3, 1, -1]]
    assert ndcg_of_one(lists, np.array([0, 2])) == pytest.approx((1 / np.log2(3)) / 2)


def test_a_question_is_read_as_it_was_written(question: Question, tmp_path: Path) -> None:
    """And the answer holds what a library can say, no more."""
    np.savez(tmp_path / "question.npz", step=0.5, **asdict(question))

    read = read_question(tmp_path)
    write_reply(tmp_path, Reply(None, np.zeros((1, 3), int), Stopwatch(), ("a note",)))

    assert (read.num_movies, read.high, read.train_movies.tolist()) == (5, 5.0, [3, 1, 4, 2, 0, 1])
    with np.load(tmp_path / "answer.npz") as answer:
        assert sorted(answer.files) == ["cpu_s", "lists", "notes", "wall_s"]
