"""The evaluation equals a slow computation, one user and one movie at a time, with nothing shared but the model."""

import csv
import math
import resource
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pyarrow import parquet

from tests.toy_dataset import toy_dataset
from trainer import evaluation
from trainer.dataset import Dataset, Interactions
from trainer.evaluation import evaluate
from trainer.fits import silent
from trainer.fits.two_tower_history import Options, fit
from trainer.predictions import TableError, write_lists, write_predictions
from two_tower.models.two_tower_history import TwoTowerHistory
from two_tower.user_columns import Histories, Profiles, UserColumns

Fitted = tuple[Dataset, Interactions, Interactions, TwoTowerHistory]


@pytest.fixture(scope="module")
def fitted() -> Fitted:
    """Data, training rows, held-out rows and a model of them; user u3 has no training row, and one row no rating."""
    data = toy_dataset()
    held = (np.arange(900) < 120) | (data.interactions.user_rows == 3)
    test = data.interactions.take(held)
    test.ratings[7] = np.nan
    train = data.interactions.take(~held)
    return data, train, test, fit(replace(data, interactions=train), Options(epochs=3), seed=0, progress=silent)


def history_by_hand(train: Interactions, user: int, window: int) -> Histories:
    events = [
        (int(train.event_times_ms[row]), int(train.movie_rows[row]), float(train.ratings[row]))
        for row in range(len(train))
        if train.user_rows[row] == user
    ]
    newest = sorted(events, reverse=True)[:window]
    return Histories(
        np.array([0, len(newest)], np.int64),
        np.array([movie for _, movie, _ in newest], np.int32),
        np.array([rating for _, _, rating in newest], np.float32),
        np.array([time for time, _, _ in newest], np.int64),
        np.array([len(events) <= window]),
    )


@pytest.mark.parametrize("window", [200, 5])
def test_it_equals_a_slow_computation(fitted: Fitted, window: int) -> None:
    """Ratings, lists and all four metrics, with whole and with trimmed histories."""
    data, train, test, model = fitted
    movies = model.embed_movies(data.movies)
    squared, absolute, gains, recalls, lists = [], [], [], [], {}
    for user in sorted(set(test.user_rows.tolist())):
        profile = Profiles([data.profiles.genders[user]], data.profiles.ages[[user]], [data.profiles.occupations[user]])
        columns = UserColumns([data.user_ids[user]], profile, history_by_hand(train, user, window))
        vector = model.embed_users(columns, movies).rating_vectors[0].numpy()
        scores = [float(vector @ movies.rating_vectors[movie].numpy()) for movie in range(len(data.movies))]
        relevant = []
        for row in np.flatnonzero(test.user_rows == user):
            relevant.append(int(test.movie_rows[row]))
            if not math.isnan(test.ratings[row]):
                error = min(5.0, max(1.0, scores[relevant[-1]])) - float(test.ratings[row])
                squared.append(error**2)
                absolute.append(abs(error))
        seen = set(train.movie_rows[train.user_rows == user].tolist())
        ranked = sorted((movie for movie in range(len(scores)) if movie not in seen), key=lambda m: (-scores[m], m))
        lists[user] = ranked[:10]
        ideal = sum(1 / math.log2(rank + 2) for rank in range(min(10, len(relevant))))
        found = [rank for rank, movie in enumerate(ranked[:10]) if movie in relevant]
        gains.append(sum(1 / math.log2(rank + 2) for rank in found) / ideal)
        recalls.append(len(found) / min(10, len(relevant)))

    evaluated = evaluate(model, data, train, test, protocol="by hand", window=window)

    metrics = evaluated.metrics
    assert metrics.rmse == pytest.approx(math.sqrt(sum(squared) / len(squared)), abs=1e-5)
    assert metrics.mae == pytest.approx(sum(absolute) / len(absolute), abs=1e-5)
    assert metrics.ndcg_at_10 == pytest.approx(sum(gains) / len(gains), abs=1e-9)
    assert metrics.recall_at_10 == pytest.approx(sum(recalls) / len(recalls), abs=1e-9)
    assert (metrics.num_ratings, metrics.num_users) == (len(squared), len(gains))
    assert dict(zip(evaluated.users.tolist(), evaluated.lists.tolist(), strict=True)) == lists


def test_what_was_clipped_can_still_be_seen(fitted: Fitted) -> None:
    """The clipped ratings are the unclipped ones, moved to the ends of the scale; rows know their user's ratings."""
    data, train, test, model = fitted

    evaluated = evaluate(model, data, train, test, protocol="")

    assert np.array_equal(np.clip(evaluated.unclipped, 1, 5), evaluated.predicted)
    assert evaluated.num_known[0] == (train.user_rows == test.user_rows[0]).sum()
    assert (evaluated.num_known[test.user_rows == 3] == 0).all()
    hits, num_relevant = evaluated.relevance()
    assert hits.shape == (len(evaluated.users), 10)
    assert num_relevant.sum() == len(test)


def test_the_number_of_users_at_once_changes_nothing(fitted: Fitted, monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches are an implementation detail."""
    data, train, test, model = fitted
    together = evaluate(model, data, train, test, protocol="")
    monkeypatch.setattr(evaluation, "_MAX_USERS_AT_ONCE", 7)

    apart = evaluate(model, data, train, test, protocol="")

    assert apart.lists.tolist() == together.lists.tolist()
    assert apart.predicted == pytest.approx(together.predicted, abs=1e-5)
    assert apart.metrics.ndcg_at_10 == pytest.approx(together.metrics.ndcg_at_10)


def test_no_list_holds_a_movie_of_the_training_rows(fitted: Fitted) -> None:
    """What was seen is never recommended, not even at the end of a list that is longer than what is left."""
    data, train, test, model = fitted

    evaluated = evaluate(model, data, train, test, protocol="", ranks=40)

    for user, listed in zip(evaluated.users.tolist(), evaluated.lists.tolist(), strict=True):
        seen = set(train.movie_rows[train.user_rows == user].tolist())
        assert sorted({*listed} - {-1}) == sorted(set(range(40)) - seen)


def test_no_list_holds_a_movie_that_the_catalogue_removed(fitted: Fitted) -> None:
    """A service would mask it, however good it is; the others move up."""
    data, train, test, model = fitted
    best = evaluate(model, data, train, test, protocol="").lists[0, 0]
    available = np.arange(len(data.movies)) != best

    without = evaluate(model, replace(data, movies=replace(data.movies, available=available)), train, test, protocol="")

    assert best not in without.lists
    assert (without.lists >= 0).all()


def test_predictions_and_lists_are_written_as_asked(fitted: Fitted, tmp_path: Path) -> None:
    """CSV and Parquet hold the same rows, under external ids."""
    data, train, test, model = fitted
    evaluated = evaluate(model, data, train, test, protocol="")

    write_predictions(tmp_path / "p.csv", data, evaluated)
    write_predictions(tmp_path / "p.parquet", data, evaluated)
    write_lists(tmp_path / "l.csv", data, evaluated)

    with (tmp_path / "p.csv").open() as file:
        rows = list(csv.DictReader(file))
    table = parquet.read_table(tmp_path / "p.parquet").to_pylist()
    assert len(rows) == len(table) == len(test)
    assert [row["movie_id"] for row in rows] == [row["movie_id"] for row in table]
    assert rows[0]["user_id"] == data.user_ids[test.user_rows[0]]
    assert float(rows[0]["predicted"]) == pytest.approx(float(evaluated.predicted[0]))
    assert rows[7]["rating"] == ""
    with (tmp_path / "l.csv").open() as file:
        listed = list(csv.DictReader(file))
    assert listed[0] == {
        "user_id": data.user_ids[evaluated.users[0]],
        "rank": "1",
        "movie_id": data.movies.movie_ids[evaluated.lists[0, 0]],
    }


@pytest.mark.parametrize("name", ["p.xlsx", "p", "nowhere/p.csv"])
def test_tables_that_cannot_be_written_are_refused(fitted: Fitted, tmp_path: Path, name: str) -> None:
    """An unknown suffix or a folder that is not there."""
    data, train, test, model = fitted

    with pytest.raises(TableError):
        write_predictions(tmp_path / name, data, evaluate(model, data, train, test, protocol=""))


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_a_table_is_written_whole_or_not_at_all(fitted: Fitted, tmp_path: Path, suffix: str) -> None:
    """A disk that takes no more leaves the table of before, and nothing beside it."""
    data, train, test, model = fitted
    judged = evaluate(model, data, train, test, protocol="")
    path = tmp_path / f"p{suffix}"
    path.write_text("of before")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)

    resource.setrlimit(resource.RLIMIT_FSIZE, (64, before[1]))
    try:
        with pytest.raises(TableError, match="cannot be written"):
            write_predictions(path, data, judged)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)

    assert path.read_text() == "of before"
    assert list(tmp_path.iterdir()) == [path]
