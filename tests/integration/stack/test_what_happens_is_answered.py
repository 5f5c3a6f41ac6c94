"""What is written through the feature RPCs shows in the very next answer of the model RPCs."""

import itertools

import numpy as np
import pytest
from marquee.client.columns import import_requests
from marquee.v1 import feature_service_pb2, model_service_pb2, movie_pb2, user_pb2

from tests.integration.stack.running_stack import MODELS, TIMEOUT_S, RunningStack, at

NEW_USERS = (f"new-user-{number}" for number in itertools.count())
NEW_MOVIES = (f"new-movie-{number}" for number in itertools.count())


def top(running: RunningStack, model: str, request: model_service_pb2.TopKRequest) -> dict[str, float]:
    """Returns the scores by movie id, best first."""
    answer = running.models[model].TopK(request, timeout=TIMEOUT_S)
    return {movie.movie_id: movie.score for movie in answer.movies}


def stored(user_id: str) -> model_service_pb2.UserSelector:
    """Selects a user by id."""
    return model_service_pb2.UserSelector(user_id=user_id)


@pytest.mark.parametrize("model", MODELS)
def test_a_watched_movie_disappears_and_moves_the_scores(running: RunningStack, model: str) -> None:
    """What a user watched just now is not recommended to him again, and changes what is."""
    user_id = running.data.user_ids[3 + MODELS.index(model)]
    before = top(running, model, model_service_pb2.TopKRequest(user=stored(user_id), k=50))
    watched = next(iter(before))

    version = running.watch(user_id, watched, minutes=1, rating=1.0)

    request = model_service_pb2.TopKRequest(user=stored(user_id), k=50)
    request.user.min_user_version = version
    after = top(running, model, request)
    assert watched not in after
    shared = before.keys() & after.keys()
    assert shared
    moved = any(abs(before[movie_id] - after[movie_id]) > 1e-4 for movie_id in shared)
    assert moved == running.checkpoints[model].model.uses_history


@pytest.mark.parametrize("model", MODELS)
def test_an_inline_user_is_answered_like_a_stored_one(running: RunningStack, model: str) -> None:
    """A user described in the request gets what a stored user gets whom the checkpoint does not know."""
    user_id = next(NEW_USERS)
    profile = user_pb2.UserProfile(gender="F", age=33, occupation="writer")
    running.features.BatchUpsertUsers(
        feature_service_pb2.BatchUpsertUsersRequest(
            users=[feature_service_pb2.UserUpsert(user_id=user_id, profile=profile)]
        ),
        timeout=TIMEOUT_S,
    )
    history = []
    for minutes, rating in enumerate((4.0, None, 2.0, 5.0)):
        movie_id = running.data.movies.movie_ids[10 + 7 * minutes]
        running.watch(user_id, movie_id, minutes, rating)
        history.append(user_pb2.HistoryEntry(movie_id=movie_id, rating=rating, event_time=at(minutes)))
    inline = model_service_pb2.UserSelector(inline_user=model_service_pb2.InlineUser(profile=profile, history=history))

    answers = [
        running.models[model].TopK(model_service_pb2.TopKRequest(user=user, k=100), timeout=TIMEOUT_S)
        for user in (stored(user_id), inline)
    ]

    # A model that makes no use of histories does not say that it did.
    folded_in = running.checkpoints[model].model.uses_history
    expected = model_service_pb2.ANSWER_SOURCE_FOLDED_IN if folded_in else model_service_pb2.ANSWER_SOURCE_PROFILE
    assert {answer.source for answer in answers} == {expected}
    first, second = ({movie.movie_id: movie.score for movie in answer.movies} for answer in answers)
    assert list(first) == list(second)
    assert list(first.values()) == pytest.approx(list(second.values()), abs=1e-5)
    ratings = [[movie.predicted_rating for movie in answer.movies] for answer in answers]
    assert ratings[0] == pytest.approx(ratings[1], abs=1e-5)


@pytest.mark.parametrize("model", MODELS)
def test_a_new_movie_is_rated_and_recommended_at_once(running: RunningStack, model: str) -> None:
    """A movie that no checkpoint knows is answered from its features, without retraining or restart."""
    movie_id = next(NEW_MOVIES)
    genre = running.data.movies.genres[0][0]
    movie = movie_pb2.Movie(movie_id=movie_id, title="A Film of Tomorrow", year=1999, genres=[genre])
    running.features.BatchUpsertMovies(
        feature_service_pb2.BatchUpsertMoviesRequest(movies=[feature_service_pb2.MovieUpsert(movie=movie)]),
        timeout=TIMEOUT_S,
    )
    user = stored(running.data.user_ids[0])

    rated = running.models[model].PredictRating(
        model_service_pb2.PredictRatingRequest(user=user, movie_id=movie_id), timeout=TIMEOUT_S
    )
    request = model_service_pb2.TopKRequest(user=user, k=5, view=movie_pb2.MOVIE_VIEW_MOVIE)
    request.filter.allow.movie_ids.append(movie_id)
    (recommended,) = running.models[model].TopK(request, timeout=TIMEOUT_S).movies

    assert rated.cold
    assert 1.0 <= rated.rating <= 5.0
    assert recommended.movie_id == movie_id
    assert recommended.cold
    assert recommended.movie.title == "A Film of Tomorrow"
    assert recommended.predicted_rating == pytest.approx(rated.rating, abs=1e-5)


@pytest.mark.parametrize("model", MODELS)
def test_a_user_of_two_thousand_movies_sees_none_of_them_again(running: RunningStack, model: str) -> None:
    """Seen movies stay away although the history window holds only the newest two hundred."""
    movie_ids = [next(NEW_MOVIES) for _ in range(2300)]
    for start in range(0, len(movie_ids), 500):
        upserts = [
            feature_service_pb2.MovieUpsert(movie=movie_pb2.Movie(movie_id=movie_id, title=movie_id))
            for movie_id in movie_ids[start : start + 500]
        ]
        running.features.BatchUpsertMovies(
            feature_service_pb2.BatchUpsertMoviesRequest(movies=upserts), timeout=TIMEOUT_S
        )
    user_id, watched = next(NEW_USERS), movie_ids[:2000]
    for load in import_requests(
        [user_id],
        np.array([0, len(watched)]),
        watched,
        np.arange(len(watched)),
        np.full(len(watched), 4.0, np.float32),
        1_700_000_000_000 + np.arange(len(watched)) * 1000,
    ):
        running.features.ImportHistories(load, timeout=TIMEOUT_S)

    everything = top(running, model, model_service_pb2.TopKRequest(user=stored(user_id), k=500))
    request = model_service_pb2.TopKRequest(user=stored(user_id), k=500)
    request.filter.allow.movie_ids.extend(movie_ids)
    unseen_only = top(running, model, request)
    request.exclude_seen = False
    with_seen = top(running, model, request)

    assert len(everything) == 500
    assert not everything.keys() & set(watched)
    assert unseen_only.keys() == set(movie_ids[2000:])
    assert with_seen.keys() & set(watched)
