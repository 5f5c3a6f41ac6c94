"""Turns what is known of a movie or a user, apart from events, into numbers. Knows no event and no trained weight."""

import numpy as np
from numpy.typing import NDArray

from two_tower.features import FeatureEncoder, bag_shares
from two_tower.movie_columns import MovieColumns
from two_tower.user_columns import Profiles

YEAR_THRESHOLDS = np.arange(1925, 2030, 5)
"""A movie is "from this year on" or not, every five years: the recipe's side input."""

AGE_BAND_STARTS = np.array([18, 25, 35, 45, 50, 56])
"""The bands in which MovieLens 1M gives ages; below 18 is the first band."""


def movie_content(movies: MovieColumns, encoder: FeatureEncoder) -> NDArray[np.float32]:
    """Returns genre flags, flags "released in year Y or later" and a flag "year unknown". float32 [M, F].

    A movie without a year counts as released in the mean year of the data.
    """
    genres = bag_shares(movies.genres, encoder.genres)[:, 1:] > 0  # [M, genres]
    missing = np.isnan(movies.years)
    years = np.where(missing, encoder.years.mean, movies.years)
    reached = years[:, None] >= YEAR_THRESHOLDS  # [M, thresholds]
    return np.concatenate([genres, reached, missing[:, None]], axis=1).astype(np.float32)


def num_movie_features(encoder: FeatureEncoder) -> int:
    """Returns the number of columns of `movie_content`."""
    return len(encoder.genres) - 1 + len(YEAR_THRESHOLDS) + 1


def profile_content(profiles: Profiles, encoder: FeatureEncoder) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Returns flags for gender, age band and occupation, and for each flag whether its field is known.

    Returns:
        Two arrays float32 [B, P], both of zeros and ones.
    """
    ages = np.where(np.isnan(profiles.ages), -1, np.digitize(profiles.ages, AGE_BAND_STARTS))
    fields = (
        (encoder.genders.rows_of(profiles.genders) - 1, len(encoder.genders) - 1),
        (ages, len(AGE_BAND_STARTS) + 1),
        (encoder.occupations.rows_of(profiles.occupations) - 1, len(encoder.occupations) - 1),
    )
    flags = np.concatenate([values[:, None] == np.arange(width) for values, width in fields], axis=1)
    known = np.concatenate([np.repeat(values[:, None] >= 0, width, axis=1) for values, width in fields], axis=1)
    return flags.astype(np.float32), known.astype(np.float32)


def num_profile_features(encoder: FeatureEncoder) -> int:
    """Returns the number of columns of `profile_content`."""
    return len(encoder.genders) - 1 + len(AGE_BAND_STARTS) + 1 + len(encoder.occupations) - 1
