"""The fits that are solved, not searched: EDLAE, content maps, user priors and compression."""

import numpy as np
import pytest
from numpy.typing import NDArray

from trainer.fits.compression import compress
from trainer.fits.content_ridge import choose_content_ridge, fit_content_ridge
from trainer.fits.edlae import fit_edlae
from trainer.fits.user_prior import fit_user_prior


def watched_at_random(num_users: int, num_movies: int, share: float) -> NDArray[np.float64]:
    return (np.random.default_rng(0).random((num_users, num_movies)) < share).astype(np.float64)


def test_edlae_at_full_rank_scores_as_its_weights_do() -> None:
    """X·B with B from the formula, solved column by column as a constrained ridge; the diagonal is zero."""
    watched = watched_at_random(50, 8, 0.4)
    users, movies = (part.astype(np.int32) for part in np.nonzero(watched))

    head = fit_edlae(users, movies, 50, 8, size=8, dropout=0.3, ridge=2.0, max_movies=8)

    gram = watched.T @ watched
    regularised = gram + np.diag(0.3 / 0.7 * np.diag(gram) + 2.0)
    expected = np.zeros((8, 8))
    for movie in range(8):
        others = [other for other in range(8) if other != movie]
        expected[others, movie] = np.linalg.solve(regularised[np.ix_(others, others)], gram[others, movie])
    assert head.inputs @ head.outputs.T == pytest.approx(expected, abs=1e-5)


def test_edlae_keeps_the_directions_that_matter_for_the_data() -> None:
    """No other matrix of rank 2 through the same weights comes nearer to the scores of the training rows."""
    watched = watched_at_random(60, 10, 0.3)
    users, movies = (part.astype(np.int32) for part in np.nonzero(watched))
    whole = fit_edlae(users, movies, 60, 10, size=10, dropout=0.3, ridge=2.0, max_movies=10)
    scores = watched @ whole.inputs @ whole.outputs.T

    cut = fit_edlae(users, movies, 60, 10, size=2, dropout=0.3, ridge=2.0, max_movies=10)

    best = np.sqrt((np.linalg.svd(scores, compute_uv=False)[2:] ** 2).sum())
    assert np.linalg.norm(watched @ cut.inputs @ cut.outputs.T - scores) == pytest.approx(best, rel=1e-4)


def test_edlae_leaves_rare_movies_out_where_there_are_too_many() -> None:
    """Their rows are zeros, and coordinates beyond the rank too."""
    watched = watched_at_random(30, 6, 0.5)
    watched[:, 4] = 0
    watched[0, 4] = 1
    users, movies = (part.astype(np.int32) for part in np.nonzero(watched))

    head = fit_edlae(users, movies, 30, 6, size=9, dropout=0.3, ridge=2.0, max_movies=5)

    assert head.inputs.shape == head.outputs.shape == (6, 9)
    assert not head.inputs[4].any()
    assert not head.outputs[4].any()
    assert head.inputs[[0, 1, 2, 3, 5]].any(axis=1).all()


def test_a_content_map_recovers_a_linear_truth() -> None:
    """With little penalty; a row of weight zero may be anything."""
    rng = np.random.default_rng(0)
    features = rng.integers(0, 2, (40, 3)).astype(np.float32)
    truth = rng.normal(size=(4, 2))
    targets = features @ truth[:3] + truth[3]
    targets[7] = 1e3
    weights = np.ones(40)
    weights[7] = 0

    found = fit_content_ridge(features, targets, weights, 1e-6)

    assert found.coefficients == pytest.approx(truth, abs=1e-4)
    assert found.left_out_variances == pytest.approx([0, 0], abs=1e-6)


def test_the_left_out_variance_is_that_of_leaving_out() -> None:
    """Refitting without each row in turn gives the same mean squared error."""
    rng = np.random.default_rng(1)
    features = rng.normal(size=(12, 2)).astype(np.float32)
    targets, weights = rng.normal(size=(12, 1)), rng.uniform(0.2, 1, 12)

    found = fit_content_ridge(features, targets, weights, 0.5).left_out_variances[0]

    errors = []
    for row in range(12):
        without = np.where(np.arange(12) == row, 0, weights)
        map_ = fit_content_ridge(features, targets, without, 0.5).coefficients
        errors.append(float(targets[row, 0] - features[row] @ map_[:-1, 0] - map_[-1, 0]))
    assert found == pytest.approx(np.average(np.square(errors), weights=weights), rel=1e-4)


@pytest.mark.parametrize(("says_something", "expected"), [(True, 1e-3), (False, 1e6)])
def test_the_penalty_is_what_left_out_rows_ask_for(says_something: bool, expected: float) -> None:
    """Next to none where content says all, the most where it says nothing; what counts for nothing has no say."""
    rng = np.random.default_rng(2)
    features = rng.normal(size=(60, 20)).astype(np.float32)
    told = features @ rng.normal(size=20) + 0.1 * rng.normal(size=60)
    noise = rng.normal(size=60)
    targets = np.stack([told, noise] if says_something else [noise, told], axis=1)

    found = choose_content_ridge(features, targets, np.ones(60), (1e-3, 1e6), np.array([1.0, 0.0]))

    assert found.coefficients == pytest.approx(fit_content_ridge(features, targets, np.ones(60), expected).coefficients)


def test_a_user_prior_finds_what_profile_and_watching_tell() -> None:
    """User vectors made of a profile part and a part for each movie watched are explained."""
    rng = np.random.default_rng(0)
    genders = rng.integers(0, 2, 800)
    watched = rng.random((800, 12)) < 0.5
    sizes = watched.sum(1)
    of_movie = rng.normal(size=(12, 3))
    of_movie -= of_movie.mean(0)
    vectors = (
        np.where(genders[:, None] == 1, 0.7, -0.7) + (watched @ of_movie) * (np.sqrt(sizes) / (sizes + 10))[:, None]
    )
    users, movies = (part.astype(np.int32) for part in np.nonzero(watched))

    prior = fit_user_prior(
        vectors.astype(np.float32),
        genders[:, None] + 1,
        3,
        users,
        movies,
        12,
        profile_ridge=1e-3,
        implicit_ridge=1e-3,
        implicit_damping=10,
        max_movies=100,
    )

    assert (prior.from_profile[2] - prior.from_profile[1]) == pytest.approx([1.4] * 3, abs=0.1)
    average = (1 - genders.mean()) * prior.from_profile[1] + genders.mean() * prior.from_profile[2]
    assert average == pytest.approx(np.zeros(3), abs=1e-5)
    assert prior.implicit == pytest.approx(of_movie, abs=0.15)


def test_nothing_is_expected_of_a_field_that_nobody_states() -> None:
    """Data without profiles or without common movies gives a prior of zeros, not NaN."""
    prior = fit_user_prior(
        np.ones((4, 2), np.float32),
        np.zeros((4, 3), np.int64),
        6,
        np.zeros(0, np.int32),
        np.zeros(0, np.int32),
        5,
        profile_ridge=1.0,
        implicit_ridge=1.0,
        implicit_damping=10,
        max_movies=100,
    )

    assert not prior.from_profile.any()
    assert not prior.implicit.any()


def test_compression_to_full_size_loses_nothing() -> None:
    """Scores are what they were; users have mean zero and covariance I / spread; surplus coordinates are zeros."""
    rng = np.random.default_rng(0)
    movies, users = rng.normal(size=(30, 4)), rng.normal(size=(50, 4)) @ rng.normal(size=(4, 4)) + 2

    small = compress(movies, users, np.ones(30), size=6, spread=3.0)

    assert small.user_vectors @ small.movie_vectors.T + small.movie_biases == pytest.approx(users @ movies.T, abs=1e-4)
    assert small.user_vectors.mean(0) == pytest.approx(np.zeros(6), abs=1e-5)
    assert np.cov(small.user_vectors.T, bias=True) == pytest.approx(np.diag([1 / 3] * 4 + [0] * 2), abs=1e-5)
    assert small.kept == pytest.approx(1)


def test_compression_serves_the_movies_that_weigh_most() -> None:
    """One coordinate is spent on the heavy movies' direction."""
    rng = np.random.default_rng(0)
    users = rng.normal(size=(500, 2))
    movies = np.array([[1.0, 0.0], [0.0, 5.0]])

    small = compress(movies, users, np.array([1000.0, 1.0]), size=1, spread=1.0)

    centred = users - users.mean(0)
    found = (small.user_vectors @ small.movie_vectors.T)[:, 0]
    assert np.corrcoef(found, centred[:, 0])[0, 1] > 0.999


def test_users_who_are_all_alike_are_compressed_to_nothing() -> None:
    """One user, or many equal ones, have no spread to whiten by."""
    small = compress(np.ones((3, 2)), np.full((5, 2), 0.5), np.ones(3), size=2, spread=1.0)

    assert np.isfinite(small.user_vectors).all()
    assert small.movie_biases == pytest.approx([1, 1, 1])
