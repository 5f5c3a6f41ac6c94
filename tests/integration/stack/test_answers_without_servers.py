"""What `two_tower.load` opens answers as the services do: the same checkpoint, users and catalogue, another way in."""

from typing import Any

import numpy as np
import pytest
from marquee.v1 import feature_service_pb2, model_service_pb2

import two_tower
from tests.integration.stack.running_stack import MODELS, TIMEOUT_S, RunningStack, stored_movies
from two_tower.recommender import Recommender
from two_tower.registry import Registry

USERS = 12
K = 8
Asked = tuple[RunningStack, str, Recommender, list[str]]


def frames(running: RunningStack, user_ids: list[str]) -> dict[str, Any]:
    """Reads what the feature service holds, as columns that a data scientist would have."""
    movies = stored_movies(running)
    request = feature_service_pb2.BatchGetUsersRequest(user_ids=user_ids, view=feature_service_pb2.USER_VIEW_FULL)
    users = running.features.BatchGetUsers(request, timeout=TIMEOUT_S).users
    entries = [(user.user_id, entry) for user in users for entry in user.history]
    profiles = [user.profile for user in users]
    return {
        "movies": {
            "movie_id": list(movies.movie_ids),
            "title": list(movies.titles),
            "year": movies.years,
            "genres": ["|".join(genres) for genres in movies.genres],
        },
        "histories": {
            "user_id": [user_id for user_id, _ in entries],
            "movie_id": [entry.movie_id for _, entry in entries],
            "rating": [entry.rating if entry.HasField("rating") else np.nan for _, entry in entries],
            "timestamp": np.array([entry.event_time.ToMilliseconds() for _, entry in entries], "datetime64[ms]"),
        },
        "users": {
            "user_id": user_ids,
            "gender": [profile.gender if profile.HasField("gender") else None for profile in profiles],
            "age": [profile.age if profile.HasField("age") else np.nan for profile in profiles],
            "occupation": [profile.occupation if profile.HasField("occupation") else None for profile in profiles],
        },
    }


@pytest.fixture(params=MODELS)
def asked(running: RunningStack, registry: Registry, request: pytest.FixtureRequest) -> Asked:
    """A model, served and opened, and users of whom one is unknown to both."""
    name: str = request.param
    user_ids = running.data.user_ids[-USERS:]
    folder = registry.path_of(running.checkpoints[name].version)
    return running, name, two_tower.load(folder, **frames(running, user_ids)), [*user_ids, "a stranger"]


def test_ratings_equal_those_of_the_rpc(asked: Asked) -> None:
    """To 1e-5, with their deviations, what they rest on and how many ratings."""
    running, name, model, user_ids = asked
    movie_ids = [*running.data.movies.movie_ids[::37], "no such movie"]
    pairs = [(user, movie) for user in range(len(user_ids)) for movie in range(len(movie_ids))]

    reply = running.models[name].BatchPredictRatings(
        model_service_pb2.BatchPredictRatingsRequest(
            user_ids=user_ids,
            movie_ids=movie_ids,
            user_indices=[user for user, _ in pairs],
            movie_indices=[movie for _, movie in pairs],
            with_stddev=True,
        ),
        timeout=TIMEOUT_S,
    )
    found = model.predict(
        {"user_id": [user_ids[user] for user, _ in pairs], "movie_id": [movie_ids[movie] for _, movie in pairs]}
    )

    for ours, theirs in (("rating", reply.ratings), ("score", reply.scores), ("stddev", reply.stddevs)):
        np.testing.assert_allclose(found[ours], theirs or np.nan, atol=1e-5, rtol=1e-5)
    assert found["num_ratings"].tolist() == [reply.num_ratings[user] for user, _ in pairs]
    assert found["cold"].tolist() == [reply.cold[movie] for _, movie in pairs]
    names = [model_service_pb2.AnswerSource.Name(source) for source in reply.sources]
    assert [f"ANSWER_SOURCE_{source}" for source in found["source"]] == [names[user] for user, _ in pairs]


@pytest.mark.parametrize(("diversity", "explain"), [(0.0, 0), (0.5, 3)])
def test_lists_equal_those_of_the_rpc(asked: Asked, diversity: float, explain: int) -> None:
    """Movie by movie; where two scores lie within rounding of each other, their movies may have changed places."""
    running, name, model, user_ids = asked

    reply = running.models[name].BatchTopK(
        model_service_pb2.BatchTopKRequest(
            users=[model_service_pb2.UserSelector(user_id=user_id) for user_id in user_ids],
            k=K,
            diversity=diversity,
            explain=explain,
        ),
        timeout=TIMEOUT_S,
    )
    found = model.top_k({"user_id": user_ids}, k=K, diversity=diversity, explain=explain)

    movies = [movie for row in reply.results for movie in row.movies]
    assert len(found["movie_id"]) == len(movies)
    same = np.array([movie.movie_id for movie in movies]) == found["movie_id"]
    np.testing.assert_allclose(found["score"], [movie.score for movie in movies], atol=1e-4, rtol=1e-5)
    assert same.mean() > 0.95
    ratings = np.array([movie.predicted_rating for movie in movies])
    np.testing.assert_allclose(found["predicted_rating"][same], ratings[same], atol=1e-5)
    if explain:
        left = np.array([movie.explanation.unexplained for movie in movies])
        np.testing.assert_allclose(found["unexplained"][same], left[same], atol=1e-2)


def test_similar_movies_equal_those_of_the_rpc(asked: Asked) -> None:
    """By the same cosines."""
    running, name, model, _ = asked
    movie_id = running.data.movies.movie_ids[5]

    reply = running.models[name].SimilarMovies(
        model_service_pb2.SimilarMoviesRequest(movie_id=movie_id, k=K), timeout=TIMEOUT_S
    )

    found = model.similar_movies(movie_id, K)
    np.testing.assert_allclose(found["score"], [movie.score for movie in reply.movies], atol=1e-5)
