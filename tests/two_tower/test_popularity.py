"""Who is answered with what is popular gets what is popular of late, whatever the model."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import two_tower
from tests.toy_dataset import DAY_MS, toy_dataset
from trainer.dataset import Dataset, Interactions
from trainer.evaluation import evaluate
from trainer.popularity import decayed_counts, popularity_of
from trainer.snapshot import Snapshot, hash_of_data
from trainer.training import Request, train
from two_tower import checkpoint as checkpoints
from two_tower.checkpoint import CheckpointError
from two_tower.registry import Registry

MODELS = ("popular", "mean", "item-knn", "mf-centred")


def rows(*views: tuple[int, int, int]) -> Interactions:
    """Returns views of (user, movie, day)."""
    users, movies, days = (np.array(column) for column in zip(*views, strict=True))
    return Interactions(
        users.astype(np.int32), movies.astype(np.int32), np.full(len(views), 4, np.float32), days * DAY_MS
    )


@pytest.fixture
def data() -> Dataset:
    """Movie 7 was watched by all of late; movie 3 by more people, years ago; nobody has a profile."""
    toy = toy_dataset(num_users=60)
    others = toy.interactions.take((toy.interactions.movie_rows != 7) & (toy.interactions.movie_rows != 3))
    # Two of each user's views become views of these.
    movie_rows, times = others.movie_rows.copy(), others.event_times_ms.copy()
    newest = int(times.max())
    first = np.unique(others.user_rows, return_index=True)[1]
    movie_rows[first], times[first] = 3, newest - 3000 * DAY_MS
    second = first[:40] + 1
    movie_rows[second], times[second] = 7, newest
    rows = Interactions(others.user_rows, movie_rows, others.ratings, times)
    nobody = replace(toy.profiles, genders=[None] * 60, ages=np.full(60, np.nan, np.float32), occupations=[None] * 60)
    return replace(toy, interactions=rows, profiles=nobody, zips=[None] * 60)


@pytest.fixture
def folder_of(tmp_path: Path, data: Dataset):
    """Trains a checkpoint."""

    def make(model: str) -> Path:
        registry = Registry(tmp_path / model)
        request = Request(model, "none", calibrated=False, reported=False)
        return train(Snapshot(data, Path("toy"), hash_of_data(data), 0), registry, request).folder

    return make


def test_a_view_counts_half_after_a_half_life() -> None:
    """And a quarter after two."""
    views = rows((0, 0, 100), (1, 0, 90), (2, 1, 80), (3, 1, 80))

    assert decayed_counts(views, 3, 10.0, until_ms=100 * DAY_MS).tolist() == [1.5, 0.5, 0.0]
    assert decayed_counts(views, 3, float("inf"), until_ms=100 * DAY_MS).tolist() == [2.0, 2.0, 0.0]


def test_without_times_views_are_counted() -> None:
    """Nothing is older than anything."""
    untimed = toy_dataset(timed=False)

    made = popularity_of(untimed, untimed.interactions, ["", "m0", "m39", "unheard of"])

    assert made.half_life_days is None
    assert made.scores.tolist() == [0.0, float((untimed.interactions.movie_rows == 0).sum()), 0.0, 0.0]


@pytest.mark.parametrize("model", MODELS)
def test_a_stranger_is_recommended_what_is_popular_of_late(model: str, folder_of, data: Dataset) -> None:
    """Though more have watched another movie long ago; and what ranks is told as the score."""
    movies = {"movie_id": list(data.movies.movie_ids), "title": list(data.movies.titles)}
    recommender = two_tower.load(folder_of(model), movies=movies)

    listed = recommender.top_k(["a stranger"], k=3)
    asked = recommender.predict({"user_id": ["a stranger"], "movie_id": [listed["movie_id"][0]]})

    assert set(listed["source"]) == {"POPULAR"}
    assert listed["movie_id"][0] == "m7"
    assert "m3" not in listed["movie_id"]
    assert asked["score"][0] == listed["score"][0] > listed["score"][1]


def test_the_evaluation_ranks_for_strangers_as_serving_does(folder_of, data: Dataset) -> None:
    """Else what is measured is not what is served."""
    made = checkpoints.load(folder_of("item-knn"))
    stranger = replace(data, user_ids=["a stranger", *data.user_ids[1:]])
    asked = data.interactions.take(np.flatnonzero(data.interactions.user_rows == 0)[:1])
    nothing = data.interactions.take(np.zeros(0, np.int64))

    found = evaluate(
        made.model, stranger, nothing, asked, protocol="", popularity=made.popularity_over(data.movies.movie_ids)
    )

    assert found.lists[0, 0] == 7


def test_a_checkpoint_without_it_is_served_as_before(folder_of) -> None:
    """The model ranks; older checkpoints stay what they were."""
    folder = folder_of("popular")
    loaded = checkpoints.load(folder)
    assert loaded.popularity is not None

    older = checkpoints.Checkpoint(loaded.version, loaded.model, replace(loaded.manifest, popularity=None))

    assert older.popularity_over(["m1"]) is None


def test_an_altered_file_is_found_out(folder_of) -> None:
    """By its hash in the manifest."""
    folder = folder_of("popular")
    path = folder / checkpoints.POPULARITY
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)

    with pytest.raises(CheckpointError, match=r"popularity\.safetensors does not match its hash"):
        checkpoints.load(folder)
    assert json.loads((folder / checkpoints.MANIFEST).read_text())["popularity"]["half_life_days"] == 365.0
