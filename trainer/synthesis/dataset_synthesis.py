"""Puts synthetic movies, users and views together, block by block of users. Knows no file.

Each block has its own stream of chance, so a block depends on the plan and its number alone, and memory holds one
block however many users there are.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from trainer.dataset import Dataset, Interactions
from trainer.errors import DataError
from trainer.synthesis.audience import MIN_RATINGS, Audience, make_audience, share_out_ratings
from trainer.synthesis.catalogue import Catalogue, make_catalogue
from trainer.synthesis.known_tastes import OCCUPATIONS
from trainer.synthesis.viewing import HIGH, LOW, STEP, watch
from two_tower.serving import RatingScale
from two_tower.user_columns import Profiles

BLOCK_USERS = 8192
MAX_DENSITY = 0.5
"""Share of all movies that one user, or all users on average, may have rated."""
_CATALOGUE, _ACTIVITY, _AUDIENCE, _VIEWS = range(4)
"""Names of the streams of chance."""


@dataclass(frozen=True, slots=True)
class SynthesisPlan:
    """How large a synthetic data set is; the default has the size of MovieLens 100K.

    Attributes:
        num_users: 1 or more.
        num_movies: 10 or more.
        num_ratings: At least one a user, at most half of all movies each.
        seed: Same plan, same bytes.
    """

    num_users: int = 943
    num_movies: int = 1682
    num_ratings: int = 100_000
    seed: int = 0

    def check(self) -> None:
        """Refuses what cannot be made.

        Raises:
            DataError: Names every figure that is out of range.
        """
        faults = []
        if self.num_users < 1:
            faults.append(f"{self.num_users:,} users: at least 1")
        if self.num_movies < 10:
            faults.append(f"{self.num_movies:,} movies: at least 10")
        most = int(self.num_users * int(self.num_movies * MAX_DENSITY))
        if not faults and not self.num_users <= self.num_ratings <= most:
            faults.append(
                f"{self.num_ratings:,} ratings: from {self.num_users:,} to {most:,} with these users and movies"
            )
        if self.seed < 0:
            faults.append(f"seed {self.seed}: 0 or more")
        if faults:
            raise DataError(f"cannot synthesize {'; '.join(faults)}")

    @property
    def num_blocks(self) -> int:
        """In how many blocks of users it is made."""
        return -(-self.num_users // BLOCK_USERS)

    def rng(self, stream: int, block: int = 0) -> np.random.Generator:
        """Returns one of the plan's streams of chance."""
        return np.random.default_rng([self.seed, stream, block])


def catalogue_of(plan: SynthesisPlan) -> Catalogue:
    """Makes the plan's movies."""
    return make_catalogue(plan.num_movies, plan.rng(_CATALOGUE))


def audience_of(plan: SynthesisPlan, block: int) -> Audience:
    """Makes one block of the plan's users."""
    size = min(BLOCK_USERS, plan.num_users - block * BLOCK_USERS)
    return make_audience(size, plan.rng(_AUDIENCE, block))


def blocks_of(plan: SynthesisPlan, catalogue: Catalogue) -> Iterator[tuple[Audience, Interactions]]:
    """Makes the users and their views block by block, ordered by user row, then by movie row."""
    least = min(MIN_RATINGS, plan.num_ratings // plan.num_users, int(plan.num_movies * MAX_DENSITY))
    most = int(plan.num_movies * MAX_DENSITY)
    counts = share_out_ratings(plan.num_users, plan.num_ratings, least, most, plan.rng(_ACTIVITY))
    for block in range(plan.num_blocks):
        first = block * BLOCK_USERS
        audience = audience_of(plan, block)
        yield audience, watch(audience, counts[first : first + BLOCK_USERS], first, catalogue, plan.rng(_VIEWS, block))


def synthesize(num_users: int = 943, num_movies: int = 1682, num_ratings: int = 100_000, *, seed: int = 0) -> Dataset:
    """Makes a data set in memory.

    Raises:
        DataError: The figures do not fit together.
    """
    plan = SynthesisPlan(num_users, num_movies, num_ratings, seed)
    plan.check()
    catalogue = catalogue_of(plan)
    audiences, views = zip(*blocks_of(plan, catalogue), strict=True)
    return Dataset(
        name=f"synthetic-{seed}",
        user_ids=[str(row + 1) for row in range(num_users)],
        profiles=Profiles(
            genders=[gender for audience in audiences for gender in genders_of(audience)],
            ages=np.concatenate([audience.ages for audience in audiences]),
            occupations=[OCCUPATIONS[code] for audience in audiences for code in audience.occupations.tolist()],
        ),
        zips=[zip_code for audience in audiences for zip_code in zips_of(audience)],
        movies=catalogue.movies,
        interactions=Interactions(
            np.concatenate([rows.user_rows for rows in views]),
            np.concatenate([rows.movie_rows for rows in views]),
            np.concatenate([rows.ratings for rows in views]),
            np.concatenate([rows.event_times_ms for rows in views]),
        ),
        scale=RatingScale(LOW, HIGH, STEP),
        has_times=True,
        notes=[f"Synthetic, seed {seed}: no real person or movie."],
    )


def genders_of(audience: Audience) -> list[str]:
    """Returns "F" or "M" by user."""
    return ["F" if is_woman else "M" for is_woman in audience.is_woman.tolist()]


def zips_of(audience: Audience) -> list[str]:
    """Returns zip codes with their leading zeros, by user."""
    return [f"{code:05d}" for code in audience.zips.tolist()]
