"""Histories are laid out to the entry as the feature store lays them out."""

import numpy as np

from trainer.dataset import Interactions
from trainer.histories import HistoryLayout

ROWS = Interactions(
    user_rows=np.array([0, 2, 0, 0, 2, 0], np.int32),
    movie_rows=np.array([5, 1, 9, 7, 3, 2], np.int32),
    ratings=np.array([1, 2, 3, 4, 5, np.nan], np.float32),
    event_times_ms=np.array([10, 50, 30, 30, 40, 20], np.int64),
)


def test_histories_are_newest_first_and_ties_by_catalogue_number() -> None:
    """The total order is (event time, catalogue number), newest first; users come as they are asked for."""
    histories = HistoryLayout(ROWS, num_users=3).stored(np.array([2, 1, 0]))

    assert histories.offsets.tolist() == [0, 2, 2, 6]
    assert histories.movie_numbers.tolist() == [1, 3, 9, 7, 2, 5]
    assert histories.event_times_ms.tolist() == [50, 40, 30, 30, 20, 10]
    assert np.isnan(histories.ratings).tolist() == [False, False, False, False, True, False]
    assert histories.complete.tolist() == [True, True, True]


def test_what_leaves_the_window_is_forgotten_and_said_so() -> None:
    """Only the newest are kept, and such a history is not complete; the seen movies are all kept."""
    layout = HistoryLayout(ROWS, num_users=3, window=2)

    histories = layout.stored(np.array([0, 2]))
    users, movies = layout.seen(np.array([2, 0]))

    assert histories.movie_numbers.tolist() == [9, 7, 1, 3]
    assert histories.complete.tolist() == [False, True]
    assert users.tolist() == [0, 0, 1, 1, 1, 1]
    assert sorted(movies[users == 1].tolist()) == [2, 5, 7, 9]


def test_nobody_has_no_history() -> None:
    """No users, or no rows, make empty columns."""
    nothing = ROWS.take(np.zeros(0, np.int64))

    assert len(HistoryLayout(ROWS, num_users=3).stored(np.zeros(0, np.int64))) == 0
    assert HistoryLayout(nothing, num_users=3).stored(np.array([0, 1])).offsets.tolist() == [0, 0, 0]
