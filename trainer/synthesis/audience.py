"""Makes up the users: who they are, what they like, how much they watch. Knows no single movie."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trainer.synthesis.catalogue import HIDDEN_DIMS, NUM_ERAS
from trainer.synthesis.known_tastes import (
    GENRES,
    MIDDLE_AGE,
    OCCUPATION_SHARES,
    OCCUPATIONS,
    RETIREMENT_AGE,
    STUDENT_AGE,
    tastes_of,
)

SHARE_OF_WOMEN = 0.3
PERSONAL_SD = 0.35
"""Stars by which people of the same demographics differ in a genre."""
LENIENCE_SD = 0.35
"""Stars by which people differ in all they rate."""
HIDDEN_SD = 0.22
"""Stars of each hidden taste."""
ERA_PER_DECADE = 0.35
"""Log preference for the oldest movies over the newest by decade of age."""
ACTIVITY_SD = 1.15
"""Spread of the logarithm of the number of ratings beyond the least, about that of MovieLens."""
MIN_RATINGS = 20


@dataclass(frozen=True, slots=True)
class Audience:
    """B users.

    Attributes:
        is_woman: bool [B]
        ages: Whole years. float32 [B]
        occupations: Positions in `OCCUPATIONS`. int64 [B]
        zips: Five digits as a number. int64 [B]
        tastes: Stars that the user gives to a genre. float32 [B, G]
        lenience: Stars that the user gives to everything. float32 [B]
        hidden: User side of the hidden tastes. float32 [B, HIDDEN_DIMS]
        era_bias: Log preference for each era. float32 [B, NUM_ERAS]
    """

    is_woman: NDArray[np.bool_]
    ages: NDArray[np.float32]
    occupations: NDArray[np.int64]
    zips: NDArray[np.int64]
    tastes: NDArray[np.float32]
    lenience: NDArray[np.float32]
    hidden: NDArray[np.float32]
    era_bias: NDArray[np.float32]


def make_audience(num_users: int, rng: np.random.Generator) -> Audience:
    """Makes up `num_users` people."""
    is_woman = rng.random(num_users) < SHARE_OF_WOMEN
    ages = np.clip(np.round(rng.gamma(6.0, 4.2, num_users) + 8), 10, 79).astype(np.float32)
    occupations = _occupations(ages, rng)
    personal = PERSONAL_SD * rng.standard_normal((num_users, len(GENRES)))
    decades = (ages - MIDDLE_AGE) / 10
    newness = np.linspace(1, -1, NUM_ERAS)  # [E], old movies first
    return Audience(
        is_woman=is_woman,
        ages=ages,
        occupations=occupations,
        zips=rng.integers(1001, 99951, num_users),
        tastes=(tastes_of(is_woman, ages, occupations) + personal).astype(np.float32),
        lenience=(LENIENCE_SD * rng.standard_normal(num_users)).astype(np.float32),
        hidden=(HIDDEN_SD * rng.standard_normal((num_users, HIDDEN_DIMS))).astype(np.float32),
        era_bias=(0.5 * ERA_PER_DECADE * decades[:, None] * newness).astype(np.float32),
    )


def _occupations(ages: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.int64]:
    shares = np.asarray([OCCUPATION_SHARES[name] for name in OCCUPATIONS])
    drawn = rng.choice(len(OCCUPATIONS), len(ages), p=shares / shares.sum())
    studies = (ages <= STUDENT_AGE) & (rng.random(len(ages)) < 0.8)
    drawn[studies] = OCCUPATIONS.index("student")
    drawn[ages >= RETIREMENT_AGE] = OCCUPATIONS.index("retired")
    return np.asarray(drawn, np.int64)


def share_out_ratings(
    num_users: int, num_ratings: int, least: int, most: int, rng: np.random.Generator
) -> NDArray[np.int64]:
    """Says how many movies each user rates: at least `least`, at most `most`, `num_ratings` in all. int64 [U]."""
    appetite = np.exp(ACTIVITY_SD * rng.standard_normal(num_users))
    counts = np.full(num_users, least, np.int64)
    while (left := num_ratings - int(counts.sum())) > 0:
        open_users = np.flatnonzero(counts < most)
        weights = appetite[open_users] / appetite[open_users].sum()
        more = np.floor(left * weights).astype(np.int64)
        if not more.any():
            more[np.argsort(-weights, kind="stable")[:left]] = 1
        counts[open_users] = np.minimum(counts[open_users] + more, most)
    return counts
