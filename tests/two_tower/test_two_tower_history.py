"""The network answers as its formula says, and every feature of user and movie counts."""

from dataclasses import replace

import numpy as np
import pytest

from two_tower.models.two_tower_history import TwoTowerHistory
from two_tower.movie_columns import MovieColumns
from two_tower.scoring import rate_all
from two_tower.user_columns import Histories, Profiles, UserColumns


def history_of(*numbers: int) -> Histories:
    count = len(numbers)
    return Histories(
        np.array([0, count], np.int64),
        np.array(numbers, np.int32),
        np.full(count, np.nan, np.float32),
        np.arange(count, 0, -1).astype(np.int64),
        np.array([True]),
    )


USER = UserColumns(["u1"], Profiles(["F"], np.array([30], np.float32), ["doctor"]), history_of(2, 0))


def test_the_answer_is_the_forward_pass(model: TwoTowerHistory, movies: MovieColumns) -> None:
    """Written out with nothing but matrix products, the towers give the same stars."""
    weights = {name: tensor.numpy().astype(np.float64) for name, tensor in model.tensors().items()}

    def run(tower: str, x: np.ndarray) -> np.ndarray:
        for layer in range(2):
            x = np.tanh(weights[f"{tower}.{layer}.weight"] @ x + weights[f"{tower}.{layer}.bias"])
        return x

    # u1 is row 2 of the users, F row 1 of the genders, doctor row 2; 30 lies a quarter of the way from 20 to 60.
    user = run(
        "user_layers",
        np.concatenate(
            [
                weights["user_table"][2],
                weights["gender_table"][1],
                weights["age.weight"][0] * 0.25 + weights["age.bias"],
                weights["occupation_table"][2],
                (weights["movie_table"][3] + weights["movie_table"][1]) / 2,
            ]
        ),
    )
    # Alien is row 2 of the movies, Horror row 4 of the genres, and 1979 the first year of the data.
    alien = run(
        "movie_layers",
        np.concatenate([weights["movie_table"][2], weights["genre_table"][4], weights["year.bias"]]),
    )
    expected = 1 + 4 / (1 + np.exp(-(user @ alien)))

    embedded = model.embed_movies(movies)
    ratings = rate_all(model, model.embed_users(USER, embedded), embedded)

    assert ratings[0, 1] == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(
    "changed",
    [
        replace(USER, user_ids=["u0"]),
        replace(USER, user_ids=[None]),
        replace(USER, profiles=replace(USER.profiles, genders=["M"])),
        replace(USER, profiles=replace(USER.profiles, genders=[None])),
        replace(USER, profiles=replace(USER.profiles, ages=np.array([31], np.float32))),
        replace(USER, profiles=replace(USER.profiles, ages=np.array([np.nan], np.float32))),
        replace(USER, profiles=replace(USER.profiles, occupations=["artist"])),
        replace(USER, histories=history_of(1, 2, 0)),
        replace(USER, histories=history_of(2)),
        replace(USER, histories=Histories.empty(1)),
    ],
    ids=["id", "no id", "gender", "no gender", "age", "no age", "occupation", "watched", "unwatched", "no history"],
)
def test_every_feature_of_a_user_counts(model: TwoTowerHistory, movies: MovieColumns, changed: UserColumns) -> None:
    """Changing one thing about a user changes what he is answered for every movie."""
    embedded = model.embed_movies(movies)

    before = rate_all(model, model.embed_users(USER, embedded), embedded)
    after = rate_all(model, model.embed_users(changed, embedded), embedded)

    assert (np.abs(before - after) > 1e-6).all()


def test_every_feature_of_a_movie_counts(model: TwoTowerHistory) -> None:
    """Five movies that differ in one thing each are rated differently."""
    alike = MovieColumns(
        ["m1", "m2", "m1", "m1", "m1"],
        [""] * 5,
        np.array([1979, 1979, 1990, 1979, 1979], np.float32),
        [("Horror",), ("Horror",), ("Horror",), ("Comedy",), ("Horror", "Drama")],
    )
    embedded = model.embed_movies(alike)

    ratings = rate_all(model, model.embed_users(USER, embedded), embedded)[0]

    assert len(set(ratings.tolist())) == 5


def test_only_the_newest_movies_of_a_history_count(model: TwoTowerHistory, movies: MovieColumns) -> None:
    """With a length of three, the fourth movie back changes nothing."""
    embedded = model.embed_movies(movies)
    short, long = replace(USER, histories=history_of(2, 0, 1)), replace(USER, histories=history_of(2, 0, 1, 3))

    assert rate_all(model, model.embed_users(short, embedded), embedded).tolist() == (
        rate_all(model, model.embed_users(long, embedded), embedded).tolist()
    )


def test_the_ranking_score_is_the_unclipped_product(model: TwoTowerHistory, movies: MovieColumns) -> None:
    """Both heads share one vector, so what ranks is what is rated."""
    embedded = model.embed_movies(movies)
    user = model.embed_users(USER, embedded)

    assert embedded.ranking_vectors is embedded.rating_vectors
    assert user.ranking_vectors is user.rating_vectors
