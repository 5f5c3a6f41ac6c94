"""`two-tower-history` as served: every feature that its towers read changes the answer, and to what they compute."""

import time
from collections.abc import Callable

import numpy as np
import pytest
from marquee.v1 import feature_service_pb2, model_service_pb2, movie_pb2, user_pb2

from tests.integration.stack.running_stack import TIMEOUT_S, RunningStack, stored_movies, stored_user
from two_tower.scoring import rank_scores, rate_pairs

MODEL = "two-tower-history"


def forward_pass(running: RunningStack, user_id: str, movie_id: str) -> tuple[float, float]:
    """Computes rating and score from the towers directly, with what the feature service holds now."""
    model = running.checkpoints[MODEL].model
    catalogue = stored_movies(running)
    movies = model.embed_movies(catalogue)
    users = model.embed_users(stored_user(running, user_id), movies)
    number = list(catalogue.movie_ids).index(movie_id)
    rating = rate_pairs(model, users, movies, np.array([0]), np.array([number]))[0]
    return float(rating), float(rank_scores(model, users, movies)[0, number])


def change_profile(**fields: object) -> Callable[[RunningStack, str, str], None]:
    """Returns a change of one field of the profile."""

    def change(running: RunningStack, user_id: str, movie_id: str) -> None:
        upsert = feature_service_pb2.UserUpsert(user_id=user_id, profile=user_pb2.UserProfile(**fields))  # type: ignore[arg-type]
        running.features.BatchUpsertUsers(
            feature_service_pb2.BatchUpsertUsersRequest(users=[upsert]), timeout=TIMEOUT_S
        )

    return change


def change_movie(**fields: object) -> Callable[[RunningStack, str, str], None]:
    """Returns a change of one field of the movie."""

    def change(running: RunningStack, user_id: str, movie_id: str) -> None:
        upsert = feature_service_pb2.MovieUpsert(movie=movie_pb2.Movie(movie_id=movie_id, **fields))  # type: ignore[arg-type]
        running.features.BatchUpsertMovies(
            feature_service_pb2.BatchUpsertMoviesRequest(movies=[upsert]), timeout=TIMEOUT_S
        )

    return change


def change_history(running: RunningStack, user_id: str, movie_id: str) -> None:
    """Lets the user watch another movie."""
    running.watch(user_id, running.data.movies.movie_ids[42], minutes=90)


CHANGES: dict[str, Callable[[RunningStack, str, str], None]] = {
    "gender": change_profile(gender="M"),
    "age": change_profile(age=61),
    "occupation": change_profile(occupation="artist"),
    "history": change_history,
    "genres": change_movie(genres=["Musical", "War"]),
    "year": change_movie(year=1931),
}


@pytest.mark.parametrize("feature", CHANGES)
def test_a_changed_feature_changes_the_answer_to_what_the_towers_compute(running: RunningStack, feature: str) -> None:
    """Changing one feature through its RPC, and nothing else, changes the score, and to the forward pass of now."""
    user_id, movie_id = f"user-of-{feature}", f"movie-of-{feature}"
    change_profile(gender="F", age=24, occupation="programmer")(running, user_id, movie_id)
    change_movie(title="A Film", year=1990, genres=["Drama"])(running, user_id, movie_id)
    running.watch(user_id, running.data.movies.movie_ids[5], minutes=1, rating=4.0)
    request = model_service_pb2.PredictRatingRequest(
        user=model_service_pb2.UserSelector(user_id=user_id), movie_id=movie_id
    )
    before = running.models[MODEL].PredictRating(request, timeout=TIMEOUT_S)
    expected_before = forward_pass(running, user_id, movie_id)

    CHANGES[feature](running, user_id, movie_id)

    # The user is near: the change reaches model_service with the feed of changes, some milliseconds later.
    after, deadline = before, time.monotonic() + TIMEOUT_S
    while after.score == before.score and time.monotonic() < deadline:
        after = running.models[MODEL].PredictRating(request, timeout=TIMEOUT_S)
    expected_after = forward_pass(running, user_id, movie_id)
    assert (before.rating, before.score) == pytest.approx(expected_before, abs=1e-5)
    assert (after.rating, after.score) == pytest.approx(expected_after, abs=1e-5)
    assert abs(after.score - before.score) > 1e-6
