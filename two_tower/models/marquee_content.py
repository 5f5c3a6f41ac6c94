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


def profile_rows(profiles: Profiles, encoder: FeatureEncoder) -> NDArray[np.int64]:
    """Returns the rows of gender, age band and occupation in one table of all three, 0 where unknown. int64 [B, 3]."""
    genders = encoder.genders.rows_of(profiles.genders)
    bands = np.where(np.isnan(profiles.ages), 0, np.digitize(profiles.ages, AGE_BAND_STARTS) + 1)
    occupations = encoder.occupations.rows_of(profiles.occupations)
    first_band = len(encoder.genders) - 1
    first_occupation = first_band + len(AGE_BAND_STARTS) + 1
    rows = np.empty((len(profiles), 3), np.int64)
    rows[:, 0] = genders
    rows[:, 1] = np.where(bands > 0, first_band + bands, 0)
    rows[:, 2] = np.where(occupations > 0, first_occupation + occupations, 0)
    return rows


def num_profile_rows(encoder: FeatureEncoder) -> int:
    """Returns the number of rows of the table that `profile_rows` names rows of, row 0 included."""
    return len(encoder.genders) - 1 + len(AGE_BAND_STARTS) + 1 + len(encoder.occupations)
