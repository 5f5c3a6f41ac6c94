"""Rates single pairs of near users, those together that come together. Knows ids and vectors; no RPC and no thread.

To rate one pair takes some twenty steps of numpy and of our own, and to rate sixteen takes as many. Who is not near, or
asks about a movie that is not there, is told so and goes the way of all others, where errors are told.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from model_service.company import Company
from model_service.generation import Generation
from model_service.generations import Generations
from model_service.held import Held
from model_service.near_features import EmbeddedNearUser, NearFeatures
from model_service.queries import Source


class RatedPair(NamedTuple):
    """The rating of one movie by one user.

    Attributes:
        rating: Stars, clipped to the scale.
        rounded_rating: The nearest rating that a user could have given.
        score: What ranks.
        source: What the answer is based on.
        cold: Whether the checkpoint does not know the movie.
        model_version: Who answered.
        user_version: The state of the user that was used.
        deviation: How far the rating may be off, in stars; None if nobody can tell.
        num_ratings: How many ratings of the user the answer rests on.
    """

    rating: float
    rounded_rating: float
    score: float
    source: Source
    cold: bool
    model_version: str
    user_version: str
    deviation: float | None
    num_ratings: int


class _Near(NamedTuple):
    """Pairs that can be rated now: where they stand among all, and movie and user of each."""

    places: list[int]
    numbers: list[int]
    users: list[EmbeddedNearUser]


class NearPairs:
    """Rates pairs by the model that serves.

    Attributes:
        num_given: Ratings so far.
        held: Those that wait for others.
    """

    def __init__(
        self, features: NearFeatures, generations: Generations, company: Company, clock: Callable[[], float]
    ) -> None:
        """Stores who knows the users, what answers, who waits for whom, and what tells monotonic seconds."""
        self._features = features
        self._generations = generations
        self.held = Held(company, clock, self._rated)
        self.num_given = 0

    async def rate(self, user_id: str, movie_id: str, deadline: float | None) -> RatedPair | None:
        """Returns the rating of a movie by a user as he is stored, as a batch would give it; None if it takes one.

        Args:
            user_id: External id, well-formed or not.
            movie_id: External id, likewise.
            deadline: When the caller stops waiting, in monotonic seconds; None if never.

        Raises:
            Unavailable: Nothing answers yet.
        """
        pairs = [(user_id, movie_id)]
        generation = self._generations.residents().serving
        near = self._near(pairs, generation)
        if not near.places:
            return None
        if self.held.is_worth_it(deadline):
            return await self.held.answered(pairs[0])
        return self._told(pairs, near, generation)[0]

    def _rated(self, pairs: Sequence[tuple[str, str]]) -> list[RatedPair | None]:
        generation = self._generations.residents().serving
        return self._told(pairs, self._near(pairs, generation), generation)

    def _told(self, pairs: Sequence[tuple[str, str]], near: _Near, generation: Generation) -> list[RatedPair | None]:
        told: list[RatedPair | None] = [None] * len(pairs)
        if near.places:
            rated = _pairs(generation, near.users, np.array(near.numbers, np.int64))
            for place, pair in zip(near.places, rated, strict=True):
                told[place] = pair
            self._features.note_answered([pairs[place][0] for place in near.places])
            self.num_given += len(near.places)
        return told

    def _near(self, pairs: Sequence[tuple[str, str]], generation: Generation) -> _Near:
        """Returns which pairs can be rated now."""
        heads, catalogue = generation.heads, generation.catalogue
        near = _Near([], [], [])
        if heads.on_host is not None and generation.checkpoint.model.rating_scale is not None:
            found = self._features.embedded_each([user_id for user_id, _ in pairs], generation)
            for place, (user, (_, movie_id)) in enumerate(zip(found, pairs, strict=True)):
                number = catalogue.number_of.get(movie_id)
                if user is None or number is None or not catalogue.available[number]:
                    continue
                embedded = user[1]
                if embedded.is_ranked_on_host(heads) and (embedded.certainty is not None or not heads.tells_deviations):
                    near.places.append(place)
                    near.numbers.append(number)
                    near.users.append(user)
        return near


def _pairs(generation: Generation, users: Sequence[EmbeddedNearUser], numbers: NDArray[np.int64]) -> list[RatedPair]:
    heads, model = generation.heads.on_host, generation.checkpoint.model
    assert heads is not None
    assert model.rating_scale is not None
    on_host = [embedded.on_host for _, embedded in users if embedded.on_host is not None]
    ratings, scores = heads.rate_and_score(on_host, np.arange(len(users)), numbers)
    rounded = model.rating_scale.round(ratings)
    version = generation.checkpoint.version
    return [
        RatedPair(rating, stars, score, embedded.source, cold, version, stored.version, deviation, embedded.num_ratings)
        for rating, stars, score, cold, deviation, (stored, embedded) in zip(
            ratings.tolist(),
            rounded.tolist(),
            scores.tolist(),
            (~generation.heads.known[numbers]).tolist(),
            _deviations(generation, users, numbers),
            users,
            strict=True,
        )
    ]


def _deviations(
    generation: Generation, users: Sequence[EmbeddedNearUser], numbers: NDArray[np.int64]
) -> Sequence[float | None]:
    """Returns how far each rating may be off; None where nobody can tell. [P]."""
    spread = generation.checkpoint.manifest.rating_spread
    if generation.heads.tells_deviations:
        deviations_by, movies = generation.checkpoint.model.deviations_by, generation.heads.movies
        told = [
            deviations_by(embedded.certainty, movies, numbers[row : row + 1])
            for row, (_, embedded) in enumerate(users)
            if embedded.certainty is not None
        ]
        return [float(deviations[0]) for deviations in told]
    if spread is None:
        return [None] * len(users)
    deviations: list[float] = spread.deviations_of([embedded.num_ratings for _, embedded in users]).tolist()
    return deviations
