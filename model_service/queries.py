"""Holds what is asked and what is answered, after admission. Knows catalogue numbers; knows no RPC and no tensor."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import overload

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


class NamedUsers(Sequence[UserQuery]):
    """Users of whom a request says nothing but their ids: as they are stored, in whatever state.

    Nearly all are: so they are kept as a list of ids, which costs a tenth of as many queries.

    Attributes:
        user_ids: Their external ids.
    """

    __slots__ = ("user_ids",)

    def __init__(self, user_ids: Sequence[str]) -> None:
        self.user_ids = user_ids

    def __len__(self) -> int:
        return len(self.user_ids)

    @overload
    def __getitem__(self, place: int) -> UserQuery: ...
    @overload
    def __getitem__(self, place: slice) -> "NamedUsers": ...
    def __getitem__(self, place: int | slice) -> "UserQuery | NamedUsers":
        if isinstance(place, slice):
            return NamedUsers(self.user_ids[place])
        return UserQuery(self.user_ids[place])


def joined_users(parts: Iterable[Sequence[UserQuery]]) -> Sequence[UserQuery]:
    """Returns the users of all parts end to end."""
    parts = list(parts)
    named = [part for part in parts if isinstance(part, NamedUsers)]
    if len(named) < len(parts):
        return [query for part in parts for query in part]
    return named[0] if len(named) == 1 else NamedUsers([user_id for part in named for user_id in part.user_ids])


def stored_ids(users: Sequence[UserQuery]) -> Sequence[str]:
    """Returns the id of each user, "" of an anonymous one."""
    return users.user_ids if isinstance(users, NamedUsers) else [query.user_id or "" for query in users]


def ids_as_stored(users: Sequence[UserQuery]) -> Sequence[str]:
    """Returns the id of each user of whom the store says all, "" of another one."""
    if isinstance(users, NamedUsers):
        return users.user_ids
    return [query.user_id or "" if query.is_as_stored else "" for query in users]


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


class UserOutcome(IntEnum):
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


@dataclass(frozen=True, slots=True)
class AnsweredUsers:
    """What the answers for B users are based on, column by column. [B] each."""

    outcomes: Sequence[UserOutcome]
    sources: Sequence[Source]
    user_versions: Sequence[str]
    num_ratings: Sequence[int]

    def __len__(self) -> int:
        return len(self.outcomes)

    def __getitem__(self, place: int) -> AnsweredUser:
        return AnsweredUser(
            self.outcomes[place], self.sources[place], self.user_versions[place], self.num_ratings[place]
        )

    def part(self, start: int, stop: int) -> "AnsweredUsers":
        """Returns users `start` to `stop - 1`."""
        return AnsweredUsers(
            self.outcomes[start:stop],
            self.sources[start:stop],
            self.user_versions[start:stop],
            self.num_ratings[start:stop],
        )

    @classmethod
    def joined(cls, parts: Sequence["AnsweredUsers"]) -> "AnsweredUsers":
        """Returns the users of all parts end to end."""
        return cls(
            [each for part in parts for each in part.outcomes],
            [each for part in parts for each in part.sources],
            [each for part in parts for each in part.user_versions],
            [each for part in parts for each in part.num_ratings],
        )


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
    users: AnsweredUsers
    ratings: NDArray[np.float32]
    rounded_ratings: NDArray[np.float32]
    scores: NDArray[np.float32]
    deviations: NDArray[np.float32] | None = None


@dataclass(frozen=True, slots=True, eq=False)
class TopKAnswer:
    """Ranked movies per user; without movies where the user could not be answered for."""

    generation: Generation
    users: AnsweredUsers
    rows: Sequence[RankedRow]


@dataclass(frozen=True, slots=True, eq=False)
class SimilarAnswer:
    """The nearest movies."""

    generation: Generation
    row: RankedRow


Answer = RatingAnswer | TopKAnswer | SimilarAnswer
