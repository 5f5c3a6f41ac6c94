"""The closed-form model answers as its formulas say, for strangers, trained users and everything between."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.two_tower.marquee_by_hand import (
    COLD,
    MOVIES,
    NAN,
    NUM_MOVIES,
    UNTIL_MS,
    Event,
    a_user,
    implicit_mean,
    make_model,
    posterior,
    some_events,
    together,
    weights_of,
)
from two_tower.errors import CheckpointError
from two_tower.models.marquee import Marquee
from two_tower.movie_columns import MovieColumns
from two_tower.serving import MovieEmbeddings


@pytest.mark.parametrize("count", [1, 3, 20, 290])
def test_a_stranger_is_the_posterior_mean_of_his_ratings(model: Marquee, movies: MovieEmbeddings, count: int) -> None:
    """Written out as a textbook regression, movie by movie, in double precision."""
    events = some_events(count)

    found = model.embed_users(a_user(events), movies).rating_vectors[0].numpy()

    assert found == pytest.approx(posterior(movies, events, implicit_mean(model, events)), abs=2e-5)


def test_a_profile_is_a_prior(model: Marquee, movies: MovieEmbeddings) -> None:
    """Each known field moves the answer by its row; an unknown one does not."""
    table = weights_of(model)["rating.from_profile"]
    # Rows: unknown; F, M; seven age bands, of which 50 to 55 is the sixth; artist, doctor.
    expected, gender_only = table[[2, 8, 10]].sum(0), table[2]

    whole = model.embed_users(a_user([], gender="M", age=52, occupation="artist"), movies)
    partly = model.embed_users(a_user([], gender="M"), movies)
    nothing = model.embed_users(a_user([]), movies)

    assert whole.rating_vectors[0].numpy() == pytest.approx(expected, abs=1e-5)
    assert partly.rating_vectors[0].numpy() == pytest.approx(gender_only, abs=1e-5)
    assert not nothing.rating_vectors.any()


def test_the_prior_counts_less_the_more_is_rated(model: Marquee, movies: MovieEmbeddings) -> None:
    """Two users who differ in profile only come closer as they rate the same movies alike."""

    def apart(events: list[Event]) -> float:
        pair = together([a_user(events, gender="M"), a_user(events, gender="F")])
        vectors = model.embed_users(pair, movies).rating_vectors
        return float((vectors[0] - vectors[1]).norm())

    assert apart([]) > apart(some_events(10)) > apart(some_events(200))


def test_a_complete_history_is_preferred_to_the_trained_vector(model: Marquee, movies: MovieEmbeddings) -> None:
    """Then a trained user and a stranger with the same history are the same."""
    events = some_events(20)

    trained = model.embed_users(a_user(events, user_id="u1"), movies)
    stranger = model.embed_users(a_user(events), movies)

    assert torch.equal(trained.rating_vectors, stranger.rating_vectors)
    assert torch.equal(trained.ranking_vectors, stranger.ranking_vectors)


def test_a_trimmed_history_leaves_the_trained_vector_unless_there_is_news(
    model: Marquee, movies: MovieEmbeddings
) -> None:
    """Events that the checkpoint has read, and events without a time, add nothing; nor does the profile."""
    old = [*some_events(50), (COLD, 2.0, 0)]

    user = model.embed_users(a_user(old, user_id="u1", complete=False, gender="M"), movies)

    weights = weights_of(model)
    assert user.rating_vectors[0].numpy() == pytest.approx(weights["rating.users"][2], abs=1e-6)
    memories = weights["ranking.memories"][2]
    expected = weights["ranking.user_bias"] + memories[0] + memories[1] + 0.1 * memories[2]
    assert user.ranking_vectors[0].numpy() == pytest.approx(expected, abs=1e-5)


def test_news_of_a_trained_user_update_his_trained_vector(model: Marquee, movies: MovieEmbeddings) -> None:
    """The prior is N(trained vector, q / (q + n)·I), with n his 300 training ratings and q = 5."""
    news = some_events(8, newest_ms=UNTIL_MS + 100)
    events = news + some_events(100, seed=1)

    found = model.embed_users(a_user(events, user_id="u1", complete=False), movies).rating_vectors[0].numpy()

    trained = weights_of(model)["rating.users"][2]
    assert found == pytest.approx(posterior(movies, news, trained, variance=5 / 305), abs=2e-5)


def test_a_cold_movie_counts_with_more_noise_and_not_for_ranking(model: Marquee, movies: MovieEmbeddings) -> None:
    """Its rating is evidence through its content; its place in the history is as if it had not been watched."""
    events = [(COLD, 5.0, 11), (3, 2.0, 10)]

    user = model.embed_users(a_user(events), movies)

    assert not movies.known[COLD]
    assert user.rating_vectors[0].numpy() == pytest.approx(
        posterior(movies, events, implicit_mean(model, events)), abs=1e-5
    )
    assert torch.equal(user.ranking_vectors, model.embed_users(a_user(events[1:]), movies).ranking_vectors)


def test_users_together_equal_users_alone(model: Marquee, movies: MovieEmbeddings) -> None:
    """Of any mix of lengths, trained, strange, complete, trimmed and empty."""
    rng = np.random.default_rng(0)
    users = [
        a_user(
            some_events(int(size), seed=place, newest_ms=UNTIL_MS + place * 3),
            user_id=[None, "u1", "u3", "a stranger"][place % 4],
            complete=bool(place % 3),
            gender=["M", None, "F"][place % 3],
            age=20 + place,
        )
        for place, size in enumerate([*rng.integers(0, 40, 30), 0, 200, 290, 130, 64, 65])
    ]
    batch = model.embed_users(together(users), movies)

    for place, user in enumerate(users):
        alone = model.embed_users(user, movies)
        assert alone.rating_vectors[0].numpy() == pytest.approx(batch.rating_vectors[place].numpy(), abs=1e-5)
        assert alone.ranking_vectors[0].numpy() == pytest.approx(batch.ranking_vectors[place].numpy(), abs=1e-5)


def test_a_complete_history_that_was_trained_on_leaves_the_trained_vector(
    model: Marquee, movies: MovieEmbeddings
) -> None:
    """As many ratings as it was made of, u0's ten, and no news: nothing is inferred anew."""
    events = [(number, 3.0, UNTIL_MS) for number in range(10)]

    trained = model.embed_users(a_user(events, user_id="u0"), movies).rating_vectors[0].numpy()
    other = model.embed_users(a_user(events[1:], user_id="u0"), movies).rating_vectors[0].numpy()

    assert trained == pytest.approx(weights_of(model)["rating.users"][1], abs=1e-6)
    assert other == pytest.approx(posterior(movies, events[1:], implicit_mean(model, events[1:])), abs=1e-5)


def test_what_was_trained_on_holds_the_trained_vector_against_news(model: Marquee, movies: MovieEmbeddings) -> None:
    """A regression on all events in which the old ones are met exactly by the trained vector."""
    old, news = [(number, 1.0, UNTIL_MS) for number in range(10)], [(20, 5.0, UNTIL_MS + 1), (21, 4.0, UNTIL_MS + 1)]
    trained = weights_of(model)["rating.users"][1]
    vectors, biases = movies.rating_vectors.numpy(), movies.rating_biases.numpy()
    as_if = [(number, float(biases[number] + vectors[number] @ trained), UNTIL_MS) for number, _, _ in old]

    found = model.embed_users(a_user(news + old, user_id="u0"), movies).rating_vectors[0].numpy()

    assert found == pytest.approx(posterior(movies, news + as_if, trained), abs=2e-5)


def test_a_movie_without_a_year_is_of_the_mean_year(model: Marquee) -> None:
    """And says that its year is unknown; a genre that the checkpoint never saw adds nothing."""
    new = MovieColumns(
        ["x", "y"], ["", ""], np.array([NAN, 1970], np.float32), [("Comedy",), ("Comedy", "Never heard of")]
    )

    embedded = model.embed_movies(new)

    of_year_unknown = weights_of(model)["rating.from_content"][-2]  # before the constant stands "year unknown"
    found = (embedded.rating_vectors[0] - embedded.rating_vectors[1]).numpy()
    assert found == pytest.approx(of_year_unknown[:-1], abs=1e-5)


def test_data_without_ratings_has_a_ranking_head_only(model: Marquee) -> None:
    """Rating vectors then have no coordinates, and nothing asks for stars."""
    config = model._config
    watched_only = make_model(replace(config, scale=None, rating_size=0))

    movies = watched_only.embed_movies(MOVIES)
    users = watched_only.embed_users(a_user(some_events(3)), movies)

    assert watched_only.rating_scale is None
    assert movies.rating_vectors.shape == (NUM_MOVIES + 1, 0)
    assert users.rating_vectors.shape == (1, 0)
    assert users.ranking_vectors.shape == (1, 6)


@pytest.mark.parametrize(
    "change",
    [
        {"rating_size": 0},
        {"ranking_size": 0},
        {"noise_variance": 0.0},
        {"cold_noise_variance": -1.0},
        {"prior_events": 0.0},
        {"spread_variance": 0.0},
        {"user_variance_factor": 0.0},
        {"memories": []},
        {"memories": [{"table": "middle", "decay": 0.5, "gain": 1.0}]},
        {"memories": [{"table": "long", "decay": 0.0, "gain": 1.0}]},
    ],
)
def test_a_config_that_makes_no_sense_is_refused(model: Marquee, change: dict[str, object]) -> None:
    """With the name of the field."""
    with pytest.raises(CheckpointError, match=f"config.{next(iter(change))}"):
        Marquee.restore({**model.config(), **change}, model.tensors(), model.vocabularies(), torch.device("cpu"))
