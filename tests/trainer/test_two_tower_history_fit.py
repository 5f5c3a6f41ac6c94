"""The fit learns what is there to learn, from the past only."""

from dataclasses import replace

import numpy as np
import pytest

from tests.toy_dataset import toy_dataset
from trainer.dataset import Dataset, Interactions
from trainer.errors import DataError
from trainer.evaluation import evaluate
from trainer.fits import silent
from trainer.fits.history_windows import HistoryWindows
from trainer.fits.two_tower_history import Options, fit


def rows_of(users: list[int], movies: list[int], times: list[int]) -> Interactions:
    return Interactions(
        np.array(users, np.int32),
        np.array(movies, np.int32),
        np.full(len(users), 3, np.float32),
        np.array(times, np.int64),
    )


def windows_of(windows: HistoryWindows, num_rows: int) -> list[list[int]]:
    found, shares = windows.of(np.arange(num_rows))
    assert np.allclose(shares.sum(axis=1), (shares > 0).any(axis=1))
    return [row[share > 0].tolist() for row, share in zip(found, shares, strict=True)]


def test_a_history_holds_the_newest_rows_before_its_moment() -> None:
    """Newest first, of the same user, strictly earlier: rows of the same moment do not see each other."""
    rows = rows_of(users=[1, 0, 0, 0, 0, 1], movies=[9, 4, 3, 2, 1, 8], times=[50, 10, 20, 20, 30, 60])

    found = windows_of(HistoryWindows(rows, has_times=True, length=2), 6)

    # Of rows 2 and 3, both at 20, the larger movie number is the newer: the order of the feature store.
    assert found == [[], [], [1], [1], [2, 3], [0]]


def test_a_history_without_times_is_a_sample_of_the_other_rows() -> None:
    """Never the row itself, never another user's, none twice; and drawn anew each epoch."""
    users = [0] * 6 + [1] * 2 + [2]
    rows = rows_of(users, list(range(9)), [0] * 9)
    windows = HistoryWindows(rows, has_times=False, length=4)
    rng = np.random.default_rng(0)
    drawn = []

    for _ in range(20):
        windows.draw(rng)
        found = windows_of(windows, 9)
        drawn.append(found)
        for row, history in enumerate(found):
            assert row not in history
            assert len(set(history)) == len(history) == min(4, users.count(users[row]) - 1)
            assert {users[other] for other in history} <= {users[row]}

    assert {other for found in drawn for other in found[0]} == {1, 2, 3, 4, 5}


def test_the_first_row_of_a_user_has_an_empty_history() -> None:
    """The notebook gave it the whole history of the user before."""
    rows = rows_of([0, 0, 1, 1], [0, 1, 2, 3], [1, 2, 1, 2])

    assert windows_of(HistoryWindows(rows, has_times=True, length=20), 4) == [[], [0], [], [2]]


@pytest.mark.parametrize(
    ("options", "timed"),
    [
        (Options(optimiser="adam", epochs=8, batch_size=32), True),
        (Options(optimiser="adam", epochs=8, batch_size=32), False),
        (Options(optimiser="rmsprop", epochs=8, batch_size=32, activation="tanh", layers=1, target="unit"), True),
        (Options(optimiser="sgd", learning_rate=0.3, epochs=8, activation="tanh", target="unit"), True),
        (Options(optimiser="sgd", learning_rate=0.3, epochs=8, activation="tanh", target="unit", threads=2), True),
    ],
    ids=["adam", "adam without times", "rmsprop", "sgd", "sgd in two threads"],
)
def test_it_learns_tastes(options: Options, timed: bool) -> None:
    """Held-out ratings of users with two clear tastes are predicted far better than by their mean."""
    data = toy_dataset(timed=timed, rows_per_user=30)
    train, test = data.interactions.take(np.arange(200, 1800)), data.interactions.take(np.arange(200))

    model = fit(replace(data, interactions=train), options, seed=0, progress=silent)

    rmse = evaluate(model, data, train, test, protocol="").metrics.rmse
    assert rmse is not None
    assert rmse < 0.75 * test.ratings.std()


def test_what_training_never_names_stays_unread() -> None:
    """Movies and users without training rows have no row: their ratings could not have leaked into one."""
    data = toy_dataset()
    few = data.interactions.take(np.flatnonzero(data.interactions.user_rows < 5))

    model = fit(replace(data, interactions=few), Options(), seed=0, progress=silent)

    assert model.vocabularies()["users"] == ["", "u0", "u1", "u2", "u3", "u4"]


def test_row_zero_is_learned_only_if_ids_are_hidden() -> None:
    """unknown_rate trains the rows for the unknown; without it they stay at the mean of the start, as zeros."""
    data = toy_dataset()

    trained = fit(data, Options(unknown_rate=0.2), seed=0, progress=silent).tensors()
    untrained = fit(data, Options(unknown_rate=0.0), seed=0, progress=silent).tensors()

    for name in ("user_table", "movie_table"):
        assert bool(trained[name][0].any())
        assert not bool(untrained[name][0].any())


def test_progress_ends_at_the_end() -> None:
    """A bar that is drawn from it is full when the fit returns."""
    told: list[tuple[int, int, str]] = []

    fit(toy_dataset(), Options(epochs=2), seed=0, progress=lambda *report: told.append(report))

    assert told[-1][0] == told[-1][1] == 2 * 900
    assert told[-1][2].startswith("epoch 2 of 2, training mse ")


@pytest.mark.parametrize("data", [toy_dataset(rated=False), replace(toy_dataset(), interactions=rows_of([], [], []))])
def test_data_without_ratings_is_refused(data: Dataset) -> None:
    """The network predicts stars and says so."""
    with pytest.raises(DataError, match="learns from ratings"):
        fit(data, Options(), seed=0, progress=silent)
