"""Checks fields that several RPCs share, and notes all that is wrong with them. Knows messages; knows no tensor."""

import math
import unicodedata
from collections.abc import Sequence

import numpy as np
from google.protobuf.timestamp_pb2 import Timestamp
from marquee.v1 import model_service_pb2, movie_pb2, user_pb2
from numpy.typing import NDArray

from model_service.catalogue import Catalogue
from model_service.filters import MovieFilter
from model_service.queries import NamedUsers, UserQuery, Watched
from model_service.stored_user import profile_fields
from service_runtime.errors import Violation
from two_tower.recommending import Wish
from two_tower.serving import RatingScale

MAX_ID_BYTES = 128
MAX_INLINE_HISTORY = 1000
MAX_SESSION_EVENTS = 100
MAX_AGE = 150
MAX_GENRES = 32
MAX_LISTED_MOVIES = 10_000
MAX_K = 500
MAX_EXPLAIN = 5

_ANY_MOVIE = MovieFilter()
_VIEWS = frozenset(movie_pb2.MovieView.values())
_TEXT_LIMITS = {"gender": 32, "occupation": 64, "zip": 32}
_LAST_SECOND = 253_402_300_799
"""9999-12-31T23:59:59Z."""


class FieldRules:
    """Reads fields of one request against one catalogue.

    Attributes:
        violations: Everything that is wrong.
        is_behind: Whether the request names something that this catalogue lacks and a newer one may have.
    """

    def __init__(self, catalogue: Catalogue, scale: RatingScale | None) -> None:
        self.catalogue = catalogue
        self._scale = scale
        self.violations: list[Violation] = []
        self.is_behind = False

    def refuse(self, path: str, description: str) -> None:
        """Notes something that is wrong."""
        self.violations.append(Violation(path, description))

    def user_ids(self, path: str, user_ids: Sequence[str]) -> None:
        """Checks ids of users."""
        if not _are_plain(user_ids):
            for place, user_id in enumerate(user_ids):
                self._user_id(f"{path}[{place}]", user_id)

    def movie_ids(self, path: str, movie_ids: Sequence[str]) -> NDArray[np.int64]:
        """Returns the catalogue number of each id, -1 where the catalogue lacks it or it is not well-formed."""
        numbers = self.catalogue.numbers_of(movie_ids)
        # What the catalogue has is well-formed.
        for place in np.flatnonzero(numbers < 0).tolist():
            self.movie_id(f"{path}[{place}]", movie_ids[place])
        return numbers

    def movie_id(self, path: str, movie_id: str) -> int | None:
        """Returns the catalogue number of a well-formed id, None if the catalogue lacks it or it is not well-formed."""
        if not self._text(path, movie_id, MAX_ID_BYTES):
            return None
        number = self.catalogue.number_of.get(movie_id)
        self.is_behind |= number is None
        return number

    def required_movie(self, path: str, movie_id: str) -> int:
        """Returns the catalogue number of a movie that must exist."""
        refused = len(self.violations)
        number = self.movie_id(path, movie_id)
        if number is None and len(self.violations) == refused:
            self.refuse(path, f"the catalogue has no movie {movie_id!r}")
        return -1 if number is None else number

    def count(self, path: str, what: str, found: int, low: int, high: int) -> bool:
        """Checks how many of something there are."""
        if low <= found <= high:
            return True
        self.refuse(path, f"{found} {what}; {low} to {high:,} are allowed")
        return False

    def k(self, k: int) -> None:
        """Checks how many movies are wanted."""
        self.count("k", "movies wanted", k, 1, MAX_K)

    def wish(self, request: model_service_pb2.TopKRequest | model_service_pb2.BatchTopKRequest) -> Wish:
        """Reads what a list of recommendations shall be."""
        self.k(request.k)
        if not 0 <= request.diversity <= 1:
            self.refuse("diversity", f"{request.diversity:g} is not between 0 and 1")
        self.count("explain", "history entries named", request.explain, 0, MAX_EXPLAIN)
        return Wish(request.k, request.diversity, request.explain)

    def view(self, view: int) -> None:
        """Checks that the view exists."""
        if view not in _VIEWS:
            self.refuse("view", f"there is no view {view}; there are {', '.join(movie_pb2.MovieView.keys())}")

    def one_user(self, path: str, user: model_service_pb2.UserSelector) -> Sequence[UserQuery]:
        """Reads whom to answer for, and him alone."""
        if not names_only(user):
            return [self.user(path, user)]
        self._user_id(f"{path}.user_id", user.user_id)
        return NamedUsers([user.user_id])

    def user(self, path: str, user: model_service_pb2.UserSelector) -> UserQuery:
        """Reads whom to answer for."""
        kind = user.WhichOneof("selector")
        overrides = self._profile(f"{path}.profile_overrides", user.profile_overrides)
        session = self._watched(f"{path}.session_events", user.session_events, MAX_SESSION_EVENTS)
        if kind == "user_id":
            self._user_id(f"{path}.user_id", user.user_id)
            return UserQuery(user.user_id, profile_fields(overrides), None, session, user.min_user_version)
        if kind is None:
            self.refuse(path, "set user_id or inline_user")
        if user.min_user_version:
            self.refuse(f"{path}.min_user_version", "goes with user_id only")
        inline = f"{path}.inline_user"
        profile = user_pb2.UserProfile()
        profile.CopyFrom(self._profile(f"{inline}.profile", user.inline_user.profile))
        profile.MergeFrom(overrides)
        history = self._watched(f"{inline}.history", user.inline_user.history, MAX_INLINE_HISTORY)
        return UserQuery(None, profile_fields(profile), history, session)

    def movie_filter(self, given: model_service_pb2.MovieFilter) -> MovieFilter:
        """Reads which movies may be answered; `given` as it is in the request, set or not."""
        if not given.ByteSize():
            return _ANY_MOVIE
        year_min = given.year_min if given.HasField("year_min") else None
        year_max = given.year_max if given.HasField("year_max") else None
        if year_min is not None and year_max is not None and year_min > year_max:
            self.refuse("filter.year_min", f"{year_min} is after year_max {year_max}")
        allow: tuple[int, ...] | None = None
        if given.HasField("allow"):
            self.count("filter.allow.movie_ids", "movies", len(given.allow.movie_ids), 0, MAX_LISTED_MOVIES)
            allow = tuple(
                self.required_movie(f"filter.allow.movie_ids[{place}]", movie_id)
                for place, movie_id in enumerate(given.allow.movie_ids[:MAX_LISTED_MOVIES])
            )
        self.count("filter.exclude.movie_ids", "movies", len(given.exclude.movie_ids), 0, MAX_LISTED_MOVIES)
        return MovieFilter(
            self._genres("filter.genres_any", given.genres_any),
            self._genres("filter.genres_all", given.genres_all),
            self._genres("filter.genres_none", given.genres_none),
            year_min,
            year_max,
            allow,
            tuple(given.exclude.movie_ids),
        )

    def _genres(self, path: str, names: Sequence[str]) -> tuple[str, ...]:
        self.count(path, "genres", len(names), 0, MAX_GENRES)
        existing: list[str] | None = None
        for place, name in enumerate(names[:MAX_GENRES]):
            if name.casefold() not in self.catalogue.genre_masks:
                existing = self.catalogue.genres() if existing is None else existing
                self.is_behind = True
                self.refuse(f"{path}[{place}]", f"there is no genre {name[:80]!r}; there are {', '.join(existing)}")
        return tuple(name.casefold() for name in names)

    def _profile(self, path: str, profile: user_pb2.UserProfile) -> user_pb2.UserProfile:
        texts = {
            "gender": profile.gender if profile.HasField("gender") else None,
            "occupation": profile.occupation if profile.HasField("occupation") else None,
            "zip": profile.zip if profile.HasField("zip") else None,
        }
        for name, text in texts.items():
            if text is not None:
                self._text(f"{path}.{name}", text, _TEXT_LIMITS[name])
        if profile.HasField("age"):
            self.count(f"{path}.age", "years", profile.age, 0, MAX_AGE)
        return profile

    def _watched(self, path: str, entries: Sequence[user_pb2.HistoryEntry], most: int) -> Watched | None:
        if not entries:
            return None
        if not self.count(path, "entries", len(entries), 0, most):
            return None
        timed = sum(entry.HasField("event_time") for entry in entries)
        if timed not in (0, len(entries)):
            self.refuse(path, f"{timed} of {len(entries)} entries have an event_time; either all have one or none has")
        numbers = [self.required_movie(f"{path}[{n}].movie_id", entry.movie_id) for n, entry in enumerate(entries)]
        ratings = [self._rating(f"{path}[{n}].rating", entry) for n, entry in enumerate(entries)]
        times = [self._time_ms(f"{path}[{n}].event_time", entry.event_time) for n, entry in enumerate(entries)]
        return Watched(
            np.array(numbers, np.int64),
            np.array(ratings, np.float32),
            np.array(times, np.int64) if timed else None,
        )

    def _rating(self, path: str, entry: user_pb2.HistoryEntry) -> float:
        if not entry.HasField("rating"):
            return math.nan
        scale = self._scale
        if not math.isfinite(entry.rating):
            self.refuse(path, "is not a finite number")
        elif scale is not None and not scale.low <= entry.rating <= scale.high:
            self.refuse(path, f"{entry.rating:g} is outside the scale of the data, {scale.low:g} to {scale.high:g}")
        return entry.rating

    def _time_ms(self, path: str, time: Timestamp) -> int:
        if not (0 <= time.seconds <= _LAST_SECOND and 0 <= time.nanos < 1_000_000_000):
            self.refuse(path, "is not between 1970 and 9999")
            return 0
        if time.nanos % 1_000_000:
            self.refuse(path, "is finer than a millisecond")
        return time.seconds * 1000 + time.nanos // 1_000_000

    def _user_id(self, path: str, user_id: str) -> None:
        # Of user ids alone, as feature_service has it: they are part of keys there.
        is_sound = self._text(path, user_id, MAX_ID_BYTES)
        if is_sound and not user_id.isprintable() and any(unicodedata.category(letter) == "Cc" for letter in user_id):
            self.refuse(path, "has a control character")

    def _text(self, path: str, text: str, most: int) -> bool:
        return self.count(path, "bytes", len(text.encode()), 1, most)


def names_only(user: model_service_pb2.UserSelector) -> bool:
    """Tells whether nothing is said of a user but his id."""
    return bool(user.user_id) and not (
        user.min_user_version or user.session_events or user.HasField("profile_overrides")
    )


def _are_plain(ids: Sequence[str]) -> bool:
    """Tells whether all ids are well-formed for sure: printable ASCII of a length that is allowed."""
    together = "".join(ids)
    return together.isascii() and together.isprintable() and all(ids) and max(map(len, ids), default=0) <= MAX_ID_BYTES
