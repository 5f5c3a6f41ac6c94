"""Makes small data sets with a known structure for tests that need a whole one. Knows no file and no model."""

import numpy as np

from trainer.dataset import Dataset, Interactions
from two_tower.movie_columns import MovieColumns
from two_tower.serving import RatingScale
from two_tower.user_columns import Profiles

DAY_MS = 86_400_000


def toy_dataset(
    *,
    num_users: int = 60,
    num_movies: int = 40,
    rows_per_user: int = 15,
    timed: bool = True,
    rated: bool = True,
    seed: int = 0,
) -> Dataset:
    """Returns users of two tastes: even ones love comedies and odd ones dramas.

    The last movie of the catalogue was never watched, and one user and one movie lack everything that may be lacking.
    """
    rng = np.random.default_rng(seed)
    users = np.repeat(np.arange(num_users), rows_per_user)
    movies = np.concatenate([rng.permutation(num_movies - 1)[:rows_per_user] for _ in range(num_users)])
    liked = (users % 2) == (movies % 2)
    stars = np.clip(np.where(liked, 4.5, 2.0) + rng.normal(0, 0.5, len(users)), 1, 5).round().astype(np.float32)
    times = 1_500_000_000_000 + rng.integers(0, 365, len(users)) * DAY_MS
    shuffled = rng.permutation(len(users))
    ages = (20 + np.arange(num_users) % 40).astype(np.float32)
    ages[-1] = np.nan
    years = (1960 + np.arange(num_movies)).astype(np.float32)
    years[-1] = np.nan
    return Dataset(
        name="toy",
        user_ids=[f"u{row}" for row in range(num_users)],
        profiles=Profiles(
            [*("MF"[row % 2] for row in range(num_users - 1)), None],
            ages,
            [*("doctor" if row % 3 else "artist" for row in range(num_users - 1)), None],
        ),
        zips=["12345"] * (num_users - 1) + [None],
        movies=MovieColumns(
            [f"m{row}" for row in range(num_movies)],
            [f"Movie {row}" for row in range(num_movies)],
            years,
            [*(("Comedy", "Drama")[row % 2 :][:1] for row in range(num_movies - 1)), ()],
        ),
        interactions=Interactions(
            users[shuffled].astype(np.int32),
            movies[shuffled].astype(np.int32),
            stars[shuffled] if rated else np.full(len(users), np.nan, np.float32),
            times[shuffled] if timed else np.zeros(len(users), np.int64),
        ),
        scale=RatingScale(1, 5, 1) if rated else None,
        has_times=timed,
    )
