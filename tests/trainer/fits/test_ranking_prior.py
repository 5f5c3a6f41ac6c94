"""What ranks for a user of whom little is known: popularity, and what his like watch."""

import numpy as np
import pytest

from trainer.fits.ranking_prior import fit_ranking_prior

NUM_MOVIES = 7


def test_a_user_without_history_is_ranked_by_popularity_and_by_what_his_like_watch() -> None:
    """Everybody watches movie 0, men movies 1 to 3, women movies 4 to 6."""
    users, movies = [], []
    for user in range(200):
        liked = [0, 1, 2, 3] if user % 2 else [0, 4, 5, 6]
        users += [user] * len(liked)
        movies += liked
    profiles = np.array([[1 + user % 2, 0, 0] for user in range(200)])
    vectors = np.random.default_rng(0).normal(size=(NUM_MOVIES, 16)).astype(np.float32)
    start = np.linspace(1, 0, NUM_MOVIES)[::-1]

    prior = fit_ranking_prior(np.array(users, np.int32), np.array(movies, np.int32), profiles, 4, vectors, start)

    anybody = start + vectors @ prior.of_everybody
    man = anybody + vectors @ prior.from_profile[2]
    woman = anybody + vectors @ prior.from_profile[1]
    assert anybody.argmax() == 0
    assert set(np.argsort(-man)[:4]) == {0, 1, 2, 3}
    assert set(np.argsort(-woman)[:4]) == {0, 4, 5, 6}
    assert not prior.from_profile[0].any()


def test_profiles_that_nobody_states_tell_nothing() -> None:
    """Data without profiles gives popularity alone."""
    users, movies = np.array([0, 0, 1], np.int32), np.array([0, 1, 0], np.int32)
    vectors = np.eye(2, dtype=np.float32)

    prior = fit_ranking_prior(users, movies, np.zeros((2, 3), np.int64), 5, vectors, np.zeros(2))

    assert not prior.from_profile.any()
    assert prior.of_everybody[0] > prior.of_everybody[1]
    assert prior.of_everybody.dtype == np.float32
    assert np.abs(prior.of_everybody).max() == pytest.approx(0.32, abs=0.3)
