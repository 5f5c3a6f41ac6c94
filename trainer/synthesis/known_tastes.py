"""The structure that is put into synthetic data: who likes which genres by how many stars. Knows no single movie.

The numbers are made up, with the signs that MovieLens 1M shows; what matters is that tests can look for them.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

GENRE_SHARES: Mapping[str, float] = {
    "Action": 0.10,
    "Adventure": 0.06,
    "Animation": 0.04,
    "Children's": 0.05,
    "Comedy": 0.19,
    "Crime": 0.05,
    "Documentary": 0.04,
    "Drama": 0.22,
    "Fantasy": 0.02,
    "Film-Noir": 0.02,
    "Horror": 0.06,
    "Musical": 0.02,
    "Mystery": 0.02,
    "Romance": 0.05,
    "Sci-Fi": 0.06,
    "Thriller": 0.06,
    "War": 0.02,
    "Western": 0.02,
}
"""How often a genre is a movie's first one; about as in MovieLens 1M."""
GENRES = tuple(GENRE_SHARES)

COMPANIONS: Mapping[str, tuple[str, ...]] = {
    "Action": ("Adventure", "Thriller", "Sci-Fi", "War"),
    "Adventure": ("Action", "Children's", "Fantasy"),
    "Animation": ("Children's", "Musical", "Comedy"),
    "Children's": ("Animation", "Comedy", "Fantasy"),
    "Comedy": ("Romance", "Drama"),
    "Crime": ("Drama", "Thriller", "Film-Noir"),
    "Documentary": ("War", "Musical"),
    "Drama": ("Romance", "War", "Crime"),
    "Fantasy": ("Adventure", "Children's"),
    "Film-Noir": ("Mystery", "Crime"),
    "Horror": ("Thriller", "Sci-Fi"),
    "Musical": ("Comedy", "Romance"),
    "Mystery": ("Thriller", "Film-Noir"),
    "Romance": ("Drama", "Comedy"),
    "Sci-Fi": ("Action", "Adventure", "Thriller"),
    "Thriller": ("Crime", "Mystery", "Action"),
    "War": ("Drama", "Action"),
    "Western": ("Action", "Adventure"),
}
"""Which genres go with a first one."""

WOMEN_OVER_MEN: Mapping[str, float] = {
    "Romance": 0.5,
    "Musical": 0.4,
    "Children's": 0.35,
    "Drama": 0.2,
    "Thriller": -0.15,
    "Horror": -0.35,
    "Western": -0.4,
    "Sci-Fi": -0.45,
    "Action": -0.45,
    "War": -0.5,
}
"""Stars by which women like a genre more than men do."""

PER_DECADE: Mapping[str, float] = {
    "Film-Noir": 0.18,
    "Western": 0.18,
    "War": 0.12,
    "Musical": 0.1,
    "Drama": 0.08,
    "Sci-Fi": -0.08,
    "Action": -0.08,
    "Animation": -0.15,
    "Horror": -0.2,
}
"""Stars by which a genre gains with each ten years of age above `MIDDLE_AGE`."""
MIDDLE_AGE = 34
MAX_DECADES = 2.5
"""Age differences beyond this change nothing more."""

OCCUPATION_SHARES: Mapping[str, float] = {
    "administrator": 0.08,
    "artist": 0.04,
    "doctor": 0.02,
    "educator": 0.1,
    "engineer": 0.08,
    "entertainment": 0.03,
    "executive": 0.05,
    "healthcare": 0.03,
    "homemaker": 0.02,
    "lawyer": 0.02,
    "librarian": 0.06,
    "marketing": 0.04,
    "none": 0.02,
    "other": 0.12,
    "programmer": 0.08,
    "retired": 0.02,
    "salesman": 0.02,
    "scientist": 0.04,
    "student": 0.05,
    "technician": 0.04,
    "writer": 0.04,
}
"""How often an occupation occurs among those between `STUDENT_AGE` and `RETIREMENT_AGE`."""
OCCUPATIONS = tuple(OCCUPATION_SHARES)
STUDENT_AGE = 23
"""Up to this age most are students."""
RETIREMENT_AGE = 65
"""From this age all are retired."""

OCCUPATION_TASTES: Mapping[str, Mapping[str, float]] = {
    "artist": {"Film-Noir": 0.5, "Documentary": 0.3, "Fantasy": 0.3},
    "doctor": {"Documentary": 0.4},
    "educator": {"Drama": 0.2, "Documentary": 0.3},
    "engineer": {"Sci-Fi": 0.4},
    "entertainment": {"Musical": 0.6},
    "executive": {"Crime": 0.3},
    "homemaker": {"Children's": 0.6, "Romance": 0.3},
    "lawyer": {"Crime": 0.6},
    "librarian": {"Mystery": 0.5},
    "programmer": {"Sci-Fi": 0.5, "Fantasy": 0.5},
    "retired": {"War": 0.3},
    "scientist": {"Documentary": 0.5, "Sci-Fi": 0.3},
    "student": {"Horror": 0.3, "Comedy": 0.2, "Animation": 0.3},
    "technician": {"Action": 0.3},
    "writer": {"Film-Noir": 0.5, "Mystery": 0.4},
}
"""Stars by which an occupation likes a genre more than the others do."""


def tastes_of(
    is_woman: NDArray[np.bool_], ages: NDArray[np.float32], occupations: NDArray[np.integer]
) -> NDArray[np.float32]:
    """Returns the stars that demographics add to each genre, by user; occupations are positions in `OCCUPATIONS`."""
    decades = np.clip((ages - MIDDLE_AGE) / 10, -MAX_DECADES, MAX_DECADES)
    by_gender = np.where(is_woman, 0.5, -0.5)[:, None] * _by_genre(WOMEN_OVER_MEN)  # [U, G]
    by_age = decades[:, None] * _by_genre(PER_DECADE)  # [U, G]
    by_occupation = np.stack([_by_genre(OCCUPATION_TASTES.get(name, {})) for name in OCCUPATIONS])  # [O, G]
    return np.asarray(by_gender + by_age + by_occupation[occupations], np.float32)


def _by_genre(stars: Mapping[str, float]) -> NDArray[np.float64]:
    return np.asarray([stars.get(genre, 0.0) for genre in GENRES])
