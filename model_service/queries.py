"""Holds what is asked and what is answered, after admission. Knows catalogue numbers; knows no RPC and no tensor."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum

import numpy as np
from numpy.typing import NDArray

from model_service.filters import MovieFilter
from model_service.generation import Generation
from two_tower.answer_source import Source as Source
from two_tower.recommending import RankedRow, Wish


@dataclass(frozen=True, slots=True)
class ProfileFields:
    """What a user tower may know of a person; None where it is not given."""

    gender: str | None = None
    age: float | None = None
    occupation: str | None = None

    @property
    def is_empty(self) -> bool:
        """Whether nothing is given."""
        return self.gender is None and self.age is None and self.occupation is None


@dataclass(frozen=True, slots=True, eq=False)
class Watched:
    """n movies that were watched, in any order, or newest first if `event_times_ms` is None.

    Attributes:
        movie_numbers: Catalogue numbers, possibly repeated. int64 [n]
        ratings: Stars, NaN where not rated. float32 [n]
        event_times_ms: Epoch milliseconds. int64 [n]
    """

    movie_numbers: NDArray[np.int64]
    ratings: NDArray[np.float32]
    event_times_ms: NDArray[np.int64] | None

    def __len__(self) -> int:
        return len(self.movie_numbers)

    @property
    def size_bytes(self) -> int:
        """What the arrays hold."""
        times = 0 if self.event_times_ms is None else self.event_times_ms.nbytes
        return self.movie_numbers.nbytes + self.ratings.nbytes + times

    def copied(self) -> "Watched":
        """Returns the same in arrays of its own."""
        times = None if self.event_times_ms is None else self.event_times_ms.copy()
        return Watched(self.movie_numbers.copy(), self.ratings.copy(), times)


@dataclass(frozen=True, slots=True, eq=False)
class UserQuery:
    """Whom to answer for.

    Attributes:
        user_id: External id of a user to read from the store; None for an anonymous one.
        profile: Of an anonymous user all that is known; of another one what replaces the stored fields.
        history: Of an anonymous user.
        session: Watched besides what is stored; None if nothing.
        min_user_version: Empty if any state will do.
    """

    user_id: str | None
    profile: ProfileFields = ProfileFields()
    history: Watched | None = None
    session: Watched | None = None
    min_user_version: str = ""

    @property
    def is_as_stored(self) -> bool:
        """Whether the store alone says all about the user: nothing is made up or added for this request."""
        return self.user_id is not None and self.session is None and self.profile.is_empty


@dataclass(frozen=True, slots=True, eq=False)
class RatingTask:
    """Wants the rating of pair p: user `positions[p]` and movie `movie_numbers[p]`, -1 where there is no such movie.

    With `with_deviations` also how far each may be off. `model_version` says who answers: None is who serves then.
    """

    catalogue_id: str
    users: Sequence[UserQuery]
    positions: NDArray[np.int64]
    movie_numbers: NDArray[np.int64]
    with_deviations: bool = False
    model_version: str | None = None


@dataclass(frozen=True, slots=True, eq=False)
class TopKTask:
    """Wants a list of movies for each user."""

    catalogue_id: str
    users: Sequence[UserQuery]
    wish: Wish
    movie_filter: MovieFilter
    exclude_seen: bool
    model_version: str | None = None


@dataclass(frozen=True, slots=True, eq=False)
class SimilarTask:
    """Wants the k movies nearest to one."""

    catalogue_id: str
    movie_number: int
    k: int
    movie_filter: MovieFilter
    users: Sequence[UserQuery] = field(default=(), init=False)
    model_version: str | None = None


Task = RatingTask | TopKTask | SimilarTask


class UserOutcome(Enum):
    """Whether a user could be answered for."""

    OK = 1
    NOT_CURRENT = 2
    FOREIGN_VERSION = 3


@dataclass(frozen=True, slots=True)
class AnsweredUser:
    """What a user's answer is based on, `num_ratings` of his among it."""

    outcome: UserOutcome
    source: Source
    user_version: str
    num_ratings: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class RatingAnswer:
    """Ratings per pair; NaN where the user or the movie could not be answered for.

    Attributes:
        generation: What answered.
        users: [B]
        ratings: Stars within the scale. float32 [P]
        rounded_ratings: float32 [P]
        scores: What ranks. float32 [P]
        deviations: How far each rating may be off, in stars; None if nobody asked or can tell. float32 [P]
    """

    generation: Generation
    users: Sequence[AnsweredUser]
    ratings: NDArray[np.float32]
    rounded_ratings: NDArray[np.float32]
    scores: NDArray[np.float32]
    deviations: NDArray[np.float32] | None = None


@dataclass(frozen=True, slots=True, eq=False)
class TopKAnswer:
    """Ranked movies per user; without movies where the user could not be answered for."""

    generation: Generation
    users: Sequence[AnsweredUser]
    rows: Sequence[RankedRow]


@dataclass(frozen=True, slots=True, eq=False)
class SimilarAnswer:
    """The nearest movies."""

    generation: Generation
    row: RankedRow


Answer = RatingAnswer | TopKAnswer | SimilarAnswer
