"""The baselines say what can be counted by hand."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.toy_dataset import toy_dataset
from trainer.dataset import Dataset, Interactions
from trainer.errors import DataError
from trainer.evaluation import user_columns
from trainer.fits import fit_function, silent
from trainer.fits.options import parse_options
from trainer.histories import HistoryLayout
from two_tower.models import MODELS
from two_tower.movie_columns import MovieColumns
from two_tower.scoring import rank_scores, rate_all
from two_tower.serving import Model, RatingScale
from two_tower.user_columns import Histories, Profiles, UserColumns

USERS, MOVIES = 3, 4


def small() -> Dataset:
    """u0 rates m0 5 and m1 3, u1 rates m0 4 and m1 3, u2 rates m0 3; nobody watched m3, u2 watched m2 unrated."""
    rows = [(0, 0, 5), (0, 1, 3), (1, 0, 4), (1, 1, 3), (2, 0, 3), (2, 2, np.nan)]
    users, movies, ratings = (np.array(column) for column in zip(*rows, strict=True))
    return Dataset(
        "small",
        [f"u{row}" for row in range(USERS)],
        Profiles.unknown(USERS),
        [None] * USERS,
        MovieColumns(
            [f"m{row}" for row in range(MOVIES)], [""] * MOVIES, np.full(MOVIES, np.nan, np.float32), [()] * 4
        ),
        Interactions(
            users.astype(np.int32), movies.astype(np.int32), ratings.astype(np.float32), np.zeros(len(rows), np.int64)
        ),
        RatingScale(1, 5, 1),
        has_times=False,
    )


def fitted(name: str, data: Dataset, *options: str, seed: int = 0) -> Model:
    made = fit_function(name)
    return made.fit(data, parse_options(made.options_class, options), seed=seed, progress=silent)


def answers(model: Model, data: Dataset) -> tuple[np.ndarray, np.ndarray]:
    movies = model.embed_movies(data.movies)
    layout = HistoryLayout(data.interactions, len(data.user_ids))
    users = model.embed_users(user_columns(data, layout, np.arange(len(data.user_ids))), movies)
    return rate_all(model, users, movies), rank_scores(model, users, movies).cpu().numpy()


def test_mean_and_majority_say_one_number() -> None:
    """Of 5, 3, 4, 3, 3 the mean is 3.6, and 3 is the most frequent."""
    assert answers(fitted("mean", small()), small())[0] == pytest.approx(np.full((USERS, MOVIES), 3.6))
    assert answers(fitted("majority", small()), small())[0] == pytest.approx(np.full((USERS, MOVIES), 3.0))


def test_popular_counts_viewers_and_damps_means() -> None:
    """m0 was watched by three; its mean is .4 above 3.6, three ratings against three of nothing."""
    ratings, scores = answers(fitted("popular", small()), small())

    assert scores[0].tolist() == [3, 2, 1, 0]
    assert ratings[0] == pytest.approx([3.6 + 0.4 * 3 / 6, 3.6 - 0.6 * 2 / 5, 3.6, 3.6], abs=1e-5)


def test_a_bias_is_taken_from_a_history() -> None:
    """A stranger whose two ratings lie one star above expectation is one star above it, damped."""
    model = fitted("bias", small(), "user_damping=2")
    movies = model.embed_movies(small().movies)
    nobody = UserColumns([None], Profiles.unknown(1), Histories.empty(1))
    expected = rate_all(model, model.embed_users(nobody, movies), movies)[0]
    history = Histories(
        np.array([0, 3]), np.array([0, 1, 2], np.int32), np.append(expected[:2] + 1, np.nan).astype(np.float32),
        np.zeros(3, np.int64), np.ones(1, np.bool_),
    )  # fmt: skip

    found = rate_all(model, model.embed_users(replace(nobody, histories=history), movies), movies)[0]

    assert found - expected == pytest.approx(np.full(MOVIES, 2 / 4), abs=1e-5)


def test_a_trimmed_history_does_not_outweigh_the_trained_bias() -> None:
    """A user of whom only a part is at hand has the bias of all his training rows."""
    data = small()
    model = fitted("bias", data)
    movies = model.embed_movies(data.movies)
    trimmed = replace(Histories.empty(1), complete=np.zeros(1, np.bool_))

    part = rate_all(model, model.embed_users(UserColumns(["u0"], Profiles.unknown(1), trimmed), movies), movies)

    assert part[0] == pytest.approx(answers(model, data)[0][0], abs=1e-5)


def test_guesses_are_spread_as_they_should_be() -> None:
    """Over 2,400 pairs the shares of the ratings are those of the model to three standard errors."""
    data = toy_dataset()
    given = np.bincount(data.interactions.ratings.astype(int), minlength=6)[1:] / len(data.interactions)
    known = slice(0, len(data.movies) - 1)

    for name, shares in (("random", np.full(5, 0.2)), ("weighted", given)):
        ratings, scores = answers(fitted(name, data), data)
        guessed = ratings[:, known]
        found = np.bincount(guessed.astype(int).ravel(), minlength=6)[1:] / guessed.size
        assert found == pytest.approx(shares, abs=3 * 0.5 / guessed.size**0.5)
        assert len(np.unique(scores[:, known])) > 0.99 * guessed.size
        assert np.corrcoef(guessed[:-1].ravel(), guessed[1:].ravel())[0, 1] == pytest.approx(0, abs=0.07)


def test_neighbours_lend_their_residuals() -> None:
    """In toy data comedies are alike and dramas are: a user who loves one comedy is told that he loves the others."""
    data = toy_dataset(num_users=200)
    model = fitted("item-knn", data, "rating_shrinkage=5")
    movies = model.embed_movies(data.movies)
    one_comedy = Histories(
        np.array([0, 1]),
        np.array([0], np.int32),
        np.array([5], np.float32),
        np.zeros(1, np.int64),
        np.ones(1, np.bool_),
    )

    users = model.embed_users(UserColumns([None], Profiles.unknown(1), one_comedy), movies)
    ratings = rate_all(model, users, movies)[0, :-1]

    assert ratings[2::2].mean() > ratings[1::2].mean() + 0.3


def test_neighbours_rank_by_common_viewers() -> None:
    """m0 and m1 were watched by two of three together: cosine 2/√6; data without times forgets nothing."""
    model = fitted("item-knn", small())

    scores = answers(model, small())[1]

    assert scores[2] == pytest.approx([1 / 3**0.5, 2 / 6**0.5, 1 / 3**0.5, 0], abs=1e-5)


def test_what_was_watched_last_counts_most() -> None:
    """With times a history's order matters to the ranking."""
    data = toy_dataset()
    model = fitted("item-knn", data, "decay_events=1")
    movies = model.embed_movies(data.movies)

    def scores(numbers: list[int]) -> torch.Tensor:
        history = Histories(
            np.array([0, 2]), np.array(numbers, np.int32), np.full(2, 4, np.float32), np.array([2, 1]),
            np.ones(1, np.bool_),
        )  # fmt: skip
        return rank_scores(model, model.embed_users(UserColumns([None], Profiles.unknown(1), history), movies), movies)

    assert not torch.allclose(scores([0, 1]), scores([1, 0]))


@pytest.mark.parametrize("name", ["item-knn", "popular", "random", "weighted"])
def test_data_without_ratings_is_ranked(name: str) -> None:
    """Who needs no stars does without."""
    data = toy_dataset(rated=False)
    model = fitted(name, data)
    movies = model.embed_movies(data.movies)
    users = model.embed_users(UserColumns([None], Profiles.unknown(1), Histories.empty(1)), movies)

    assert model.rating_scale is None
    assert bool(torch.isfinite(rank_scores(model, users, movies)).all())


@pytest.mark.parametrize("name", ["mf-centred", "dot-bias", "dot-bias-genre", "majority", "mean", "bias"])
def test_who_needs_ratings_says_so(name: str) -> None:
    """Data without them is refused by name."""
    assert name in MODELS
    with pytest.raises(DataError, match=f"{name} learns from ratings, and toy has none"):
        fitted(name, toy_dataset(rated=False))
