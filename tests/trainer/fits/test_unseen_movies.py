"""What `marquee` expects of movies that it has no rating of is what ratings say, not what movies do."""

from dataclasses import replace

import numpy as np

from trainer.comparison.cold_start import ColdStart, divide_cold
from trainer.dataset import Dataset, Interactions
from trainer.evaluation import evaluate
from trainer.fits import bias, silent
from trainer.fits.marquee import Options, fit
from two_tower.movie_columns import MovieColumns
from two_tower.serving import RatingScale
from two_tower.user_columns import Profiles

QUICK = Options(
    hidden_size=16,
    towers=1,
    tower_epochs=5,
    machine_iterations=10,
    machine_rank=4,
    ranking_size=1,
    ranking_epochs=0,
    closed_size=1,
    closed_movies=10,
    untimed_size=1,
    untimed_movies=10,
    measured_deviations=False,
)

NUM_USERS, NUM_MOVIES = 150, 300


def data_of_hits(worth_of_a_genre: float) -> Dataset:
    """Every tenth movie is watched by most and liked, the others by few and less; one of two genres is better."""
    rng = np.random.default_rng(4)
    hit = np.arange(NUM_MOVIES) % 10 == 0
    good = rng.random(NUM_MOVIES) < 0.5
    watched = rng.random((NUM_USERS, NUM_MOVIES)) < np.where(hit, 0.8, 0.05)
    users, movies = np.nonzero(watched)
    mood = rng.normal(0, 0.4, NUM_USERS)
    stars = np.where(hit, 4.0, 2.6)[movies] + mood[users] + worth_of_a_genre * good[movies]
    return Dataset(
        "hits",
        [f"u{row}" for row in range(NUM_USERS)],
        Profiles.unknown(NUM_USERS),
        [None] * NUM_USERS,
        MovieColumns(
            [f"m{row}" for row in range(NUM_MOVIES)],
            [""] * NUM_MOVIES,
            rng.integers(1930, 2020, NUM_MOVIES).astype(np.float32),
            [("Western",) if is_good else ("Musical",) for is_good in good],
        ),
        Interactions(
            users.astype(np.int32),
            movies.astype(np.int32),
            np.clip(stars + rng.normal(0, 0.5, len(users)), 1, 5).astype(np.float32),
            np.zeros(len(users), np.int64),
        ),
        RatingScale(1, 5, 0.5),
        False,
    )


def errors_on_unseen(data: Dataset, seed: int) -> tuple[float, float]:
    """Root mean squared error of the model and of biases alone on movies held out with all their ratings."""
    parts = divide_cold(data, ColdStart("new-movies", 0.2), seed)
    learned = replace(data, interactions=parts.train)
    models = (
        fit(learned, QUICK, seed=0, progress=silent),
        bias.fit(learned, bias.Options(), seed=0, progress=silent),
    )
    of_model, of_biases = (
        evaluate(model, data, parts.train, parts.held_out, protocol="").metrics.rmse for model in models
    )
    assert of_model is not None
    assert of_biases is not None
    return of_model, of_biases


def test_biases_are_matched_where_content_says_nothing() -> None:
    """Hits are liked better and are most of the ratings: the mean of movies would be nearly a star too low."""
    found = [errors_on_unseen(data_of_hits(0.0), seed) for seed in range(2)]

    of_model, of_biases = np.mean(found, axis=0)
    assert of_model < 1.02 * of_biases


def test_biases_are_beaten_where_content_says_something() -> None:
    """A genre that is a star better than the other is seen, hits or not."""
    found = [errors_on_unseen(data_of_hits(1.0), seed) for seed in range(2)]

    of_model, of_biases = np.mean(found, axis=0)
    assert of_model < 0.95 * of_biases
