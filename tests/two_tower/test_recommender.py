"""Answers without servers: what tables may look like, what is refused, what is answered."""

from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import two_tower
from tests.toy_dataset import toy_dataset
from trainer.fits import silent
from trainer.frames import frames_of
from trainer.snapshot import Snapshot, hash_of_data
from trainer.training import Request, train
from two_tower.errors import FrameError, TwoTowerError
from two_tower.people import People
from two_tower.recommender import Recommender
from two_tower.registry import Registry

DATA = toy_dataset()
FRAMES: dict[str, Any] = dict(frames_of(DATA))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A registry with one checkpoint."""
    registry = Registry(tmp_path_factory.mktemp("registry"))
    snapshot = Snapshot(DATA, registry.path, hash_of_data(DATA), 0)
    train(snapshot, registry, Request(model="bias", holdout="random:0.1"), silent)
    return registry.path


@pytest.fixture(scope="module")
def model(folder: Path) -> Recommender:
    """The toy data, opened."""
    return two_tower.load(folder, **FRAMES)


def test_a_checkpoint_is_opened_by_its_folder_too(folder: Path, model: Recommender) -> None:
    """A registry's `stable` is that checkpoint here."""
    by_folder = two_tower.load(folder / model.manifest.version, **FRAMES)

    assert by_folder.predict(FRAMES["histories"])["rating"].tolist() == (
        model.predict(FRAMES["histories"])["rating"].tolist()
    )


def test_a_frame_is_whatever_gives_columns_by_name(folder: Path, model: Recommender) -> None:
    """Lists instead of frames, MovieLens's names, genres in one text, years in the title, seconds for times."""
    movies, histories = FRAMES["movies"], FRAMES["histories"]
    plain = two_tower.load(
        folder,
        movies={
            "movieId": list(movies["movie_id"]),
            "title": [
                title if np.isnan(year) else f"{title} ({year:.0f})"
                for title, year in zip(movies["title"], movies["year"], strict=True)
            ],
            "genres": ["|".join(genres) or "(no genres listed)" for genres in movies["genres"]],
        },
        histories={
            "userId": list(histories["user_id"]),
            "movieId": list(histories["movie_id"]),
            "rating": list(histories["rating"]),
            "timestamp": [stamp.timestamp() for stamp in histories["timestamp"].dt.tz_localize("UTC")],
        },
        users=FRAMES["users"].to_dict("list"),
    )

    np.testing.assert_array_equal(plain.movies.years, model.movies.years)
    assert list(plain.movies.genres) == list(model.movies.genres)
    assert list(plain.movies.titles) == list(model.movies.titles)
    for name, column in model.top_k(["u0", "u1"], k=5).items():
        assert plain.top_k({"userId": ["u0", "u1"]}, k=5)[name].tolist() == column.tolist()


def test_numbers_are_ids_as_they_are_written() -> None:
    """1 and 1.0 are "1"; a user who has none is nobody; half a number is refused."""
    people = People.read({"user_id": np.array([1, 2]), "movie_id": [7.0, 7.0]}, None, {"7": 0})

    assert list(people.row_of) == ["1", "2"]
    with pytest.raises(
        FrameError, match=r"user_id holds 1\.5 in row 1 \(the first is 0\); ids are strings or whole numbers"
    ):
        People.read({"user_id": [1.0, 1.5], "movie_id": ["7", "7"]}, None, {"7": 0})


def test_of_repeated_events_the_newest_counts_with_the_newest_rating() -> None:
    """As the store merges: watched again and not rated keeps the stars; equal times stand by catalogue number."""
    people = People.read(
        {
            "user_id": ["u"] * 5,
            "movie_id": ["a", "b", "a", "c", "a"],
            "rating": [4.0, 3.0, np.nan, 2.0, 1.0],
            "timestamp": [datetime(2020, 1, day) for day in (2, 3, 4, 3, 1)],
        },
        None,
        {"a": 0, "b": 1, "c": 2},
    )

    histories = people.columns(["u"], 2, np.zeros(1, np.bool_)).histories
    assert histories.movie_numbers.tolist() == [0, 2]
    assert histories.ratings.tolist() == [4.0, 2.0]
    assert histories.complete.tolist() == [False]
    assert people.seen("u").tolist() == [0, 2, 1]


def test_rows_that_name_nobody_or_nothing_known_are_answered_for(model: Recommender) -> None:
    """A stranger and a missing id get what everybody gets; a movie that the catalogue lacks has no numbers."""
    found = model.predict({"user_id": ["u0", "nobody", None, "u0"], "movie_id": ["m1", "m1", "m1", "no such"]})

    assert found["rating"][1] == found["rating"][2]
    assert np.isnan([found["rating"][3], found["rounded_rating"][3], found["score"][3]]).all()
    assert found["num_ratings"].tolist() == [15, 0, 0, 15]
    assert not found["cold"].any()


def test_a_list_leaves_out_what_was_seen_and_holds_what_was_allowed(model: Recommender) -> None:
    """One list a distinct user, in the order of asking; ranks count from 1."""
    lists = pd.DataFrame(model.top_k(["u3", "u1", "u3"], k=4))
    among = model.top_k(["u3"], k=4, among=["m1", "m2", "no such"], exclude_seen=False)
    seen = set(FRAMES["histories"].query("user_id == 'u3'")["movie_id"])

    assert lists["user_id"].tolist() == ["u3"] * 4 + ["u1"] * 4
    assert lists["rank"].tolist() == [1, 2, 3, 4] * 2
    assert not set(lists.query("user_id == 'u3'")["movie_id"]) & seen
    assert set(among["movie_id"]) == {"m1", "m2"}
    assert len(model.top_k([], k=4)["movie_id"]) == 0


def test_histories_can_be_swapped(model: Recommender) -> None:
    """A what-if: the same checkpoint over other users."""
    watched = model.with_histories({"user_id": ["new"], "movie_id": ["m0"], "rating": [5.0]})

    assert watched.predict({"user_id": ["new"], "movie_id": ["m1"]})["num_ratings"].tolist() == [1]
    assert "m0" not in watched.top_k(["new"], k=40)["movie_id"]


@pytest.mark.parametrize(
    ("frames", "said"),
    [
        ({"movies": {"title": ["A"]}}, "movies have no column 'movie_id'"),
        ({"movies": {"movie_id": ["a", "a"]}}, "movies: 1 rows repeat a movie_id"),
        ({"movies": {"movie_id": ["a", None]}}, "movies: movie_id is missing in 1 of 2 rows"),
        ({"histories": {"user_id": ["u"], "movie_id": ["x"]}}, "histories name 1 movies that movies lack: x"),
        ({"histories": {"user_id": ["u"], "movie_id": ["m0"], "rating": ["good"]}}, "rating holds what is no number"),
        ({"histories": {"user_id": ["u"], "movie_id": ["m0"], "timestamp": [1e12]}}, "between 1970 and 9999"),
        ({"histories": {"user_id": ["u"], "movie_id": ["m0"], "timestamp": [np.nan]}}, "missing in 1 of 1 rows"),
        ({"users": {"user_id": ["u", "u"]}}, "users: 1 rows repeat a user_id"),
    ],
)
def test_a_table_that_cannot_be_read_is_refused_by_its_column(folder: Path, frames: dict[str, Any], said: str) -> None:
    """The message names the column and what is wrong with it."""
    with pytest.raises(FrameError, match=said):
        two_tower.load(folder, **{**FRAMES, **frames})


def test_what_cannot_be_asked_is_refused(model: Recommender, tmp_path: Path) -> None:
    """A folder without a checkpoint, a missing column, a movie that is not there, a diversity above 1."""
    with pytest.raises(TwoTowerError, match="neither a checkpoint nor a registry"):
        two_tower.load(tmp_path, **FRAMES)
    with pytest.raises(FrameError, match="questions have no column 'movie_id'"):
        model.predict({"user_id": ["u0"]})
    with pytest.raises(FrameError, match="movies lack 'no such'"):
        model.similar_movies("no such")
    with pytest.raises(ValueError, match="diversity 2"):
        model.top_k(["u0"], diversity=2)
