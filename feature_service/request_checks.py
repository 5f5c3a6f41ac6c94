"""Checks requests against the limits that the contract states, and says everything that is wrong at once.

Knows messages and limits; knows no storage. Each function returns the request in the store's terms.
"""

import math
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
from google.protobuf.timestamp_pb2 import Timestamp
from marquee.v1 import feature_service_pb2 as pb2
from marquee.v1 import user_pb2
from numpy.typing import NDArray

from feature_service.event_log import PositionError
from feature_service.keys import NUM_PARTITIONS
from feature_service.users import ProfileChange
from feature_service.value_format import Profile, RatingScale
from service_runtime.errors import InvalidRequest, Violation

MAX_ID_BYTES = 128
MAX_USERS = 1000
MAX_USERS_WITH_SEEN = 250
MAX_HISTORY_LIMIT = 1000
MAX_ENTRIES_FULL = 20_000
MAX_ENTRIES_COLUMNS = 200_000
MAX_MOVIES = 500
MAX_EVENTS = 1000
MAX_IMPORT_ENTRIES = 50_000
MAX_IMPORT_MOVIES = 20_000
# Far outside any scale in use; it keeps sums of ratings finite.
MAX_RATING = 1000.0
ANY_SCALE = RatingScale(-MAX_RATING, MAX_RATING)
EVENT_INVALID, RATING_OFF_SCALE, EVENT_TIME_IN_FUTURE = "EVENT_INVALID", "RATING_OFF_SCALE", "EVENT_TIME_IN_FUTURE"
# 9999-12-31T23:59:59.999Z, the last time that a Timestamp can say.
MAX_TIME_MS = 253_402_300_799_999
MAX_AGE = 150
MAX_CLEAR_FIELDS = 32
MAX_EXPORT_PAGE = 10_000
MAX_EXPORT_NAME_BYTES = 64
_TEXT_BYTES = {"gender": 32, "occupation": 64, "zip": 32}
_VIEWS = frozenset(pb2.UserView.values())
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


class Violations:
    """Collects what is wrong with a request."""

    def __init__(self) -> None:
        self.found: list[Violation] = []

    def add(self, path: str, description: str) -> None:
        """Notes one violation."""
        self.found.append(Violation(path, description))

    def raise_if_any(self) -> None:
        """Raises `InvalidRequest` with all violations, if there are any."""
        if self.found:
            raise InvalidRequest(self.found)

    def text(self, path: str, text: str, lowest: int, highest: int) -> None:
        """Notes a text of another length in bytes."""
        if not lowest <= len(text.encode()) <= highest:
            self.add(path, f"must be {lowest} to {highest} bytes")

    def external_id(self, path: str, text: str) -> None:
        """Notes an id that is empty, too long or holds control characters."""
        self.text(path, text, 1, MAX_ID_BYTES)
        if _CONTROL.search(text):
            self.add(path, "must not hold control characters")

    def count(self, path: str, number: int, highest: int) -> None:
        """Notes a list that is empty or too long."""
        if not 1 <= number <= highest:
            self.add(path, f"must have 1 to {highest} entries, not {number}")

    def distinct(self, path: str, values: Iterable[str]) -> None:
        """Notes every repetition of a value."""
        seen: set[str] = set()
        for position, value in enumerate(values):
            if value in seen:
                self.add(f"{path}[{position}]", "is there already; each may be given once")
            seen.add(value)

    def at_most(self, path: str, number: int, highest: int) -> bool:
        """Notes a list that is too long; tells whether its entries are worth looking at.

        A message of 4 MiB has room for millions of entries, and nobody else is answered while they are looked at.
        """
        if number > highest:
            self.add(path, f"must have at most {highest} entries, not {number}")
        return number <= highest

    def ids(self, path: str, values: Sequence[str], highest: int, *, distinct: bool, within: str = "") -> None:
        """Notes what is wrong with a list of ids; `within` is the id's path in an entry that holds more."""
        self.count(path, len(values), highest)
        if len(values) > highest:
            return
        if not _all_plain(values):
            for position, value in enumerate(values):
                self.external_id(f"{path}[{position}]" + (f".{within}" if within else ""), value)
        if distinct:
            self.distinct(path, values)


@dataclass(frozen=True, slots=True)
class UsersQuery:
    """A checked BatchGetUsersRequest."""

    user_ids: Sequence[str]
    history_limit: int
    columns: bool
    include_seen: bool


@dataclass(frozen=True, slots=True)
class ImportRows:
    """A checked ImportHistoriesRequest: E entries of B users over M movies."""

    user_ids: Sequence[str]
    movie_ids: Sequence[str]
    lengths: NDArray[np.int64]
    movie_indices: NDArray[np.int64]
    ratings: NDArray[np.float32]
    times_ms: NDArray[np.int64] = field(repr=False)


@dataclass(frozen=True, slots=True)
class CheckedEvent:
    """One event of a WriteEventsRequest.

    Attributes:
        time_ms: Its time, if it is sound.
        reason: A constant of EventResult.reason; empty if it is sound.
        violations: Everything that is wrong with it.
    """

    time_ms: int
    reason: str
    violations: Sequence[Violation]


def _all_plain(ids: Sequence[str]) -> bool:
    """Tells that ids are sound because they are short and of printable ASCII; others may be sound as well."""
    joined = "".join(ids)
    return joined.isascii() and joined.isprintable() and all(ids) and max(map(len, ids), default=0) <= MAX_ID_BYTES


def users_query(request: pb2.BatchGetUsersRequest, window: int) -> UsersQuery:
    """Checks BatchGetUsers."""
    wrong = Violations()
    columns = request.view == pb2.USER_VIEW_COLUMNS
    user_ids = list(request.user_ids)  # each use of a message's own list makes its strings anew
    if request.view not in _VIEWS:
        wrong.add("view", f"must be one of {', '.join(pb2.UserView.keys())}, not {request.view}")
    wrong.ids("user_ids", user_ids, MAX_USERS, distinct=False)
    limit = request.history_limit if request.HasField("history_limit") else window
    if limit > MAX_HISTORY_LIMIT:
        wrong.add("history_limit", f"must be 0 to {MAX_HISTORY_LIMIT}")
    most = MAX_ENTRIES_COLUMNS if columns else MAX_ENTRIES_FULL
    if len(user_ids) * limit > most:
        wrong.add("user_ids", f"{len(user_ids)} users x {limit} entries is above {most}")
    if request.include_seen and not columns:
        wrong.add("include_seen", "needs view USER_VIEW_COLUMNS")
    if request.include_seen and len(user_ids) > MAX_USERS_WITH_SEEN:
        wrong.add("user_ids", f"must have at most {MAX_USERS_WITH_SEEN} entries with include_seen")
    wrong.raise_if_any()
    return UsersQuery(user_ids, limit, columns, request.include_seen)


def movie_ids(request: pb2.BatchGetMoviesRequest) -> Sequence[str]:
    """Checks BatchGetMovies."""
    wrong = Violations()
    wrong.ids("movie_ids", request.movie_ids, MAX_MOVIES, distinct=False)
    wrong.raise_if_any()
    return request.movie_ids


def profile_changes(request: pb2.BatchUpsertUsersRequest) -> dict[str, ProfileChange]:
    """Checks BatchUpsertUsers."""
    wrong = Violations()
    wrong.ids("users", [row.user_id for row in request.users], MAX_USERS, distinct=True, within="user_id")
    changes = {}
    for position, row in enumerate(request.users[:MAX_USERS]):
        path = f"users[{position}]"
        given = _profile(wrong, f"{path}.profile", row.profile)
        present = given._asdict()
        if not wrong.at_most(f"{path}.clear_fields", len(row.clear_fields), MAX_CLEAR_FIELDS):
            continue
        for at, name in enumerate(row.clear_fields):
            if name not in Profile._fields:
                wrong.add(f"{path}.clear_fields[{at}]", f"must be one of {', '.join(Profile._fields)}")
            elif present[name] is not None:
                wrong.add(f"{path}.clear_fields[{at}]", f"{name} is set and cleared at once")
        changes[row.user_id] = ProfileChange(given, frozenset(row.clear_fields))
    wrong.raise_if_any()
    return changes


def events(request: pb2.WriteEventsRequest, latest_ms: int) -> list[CheckedEvent]:
    """Checks WriteEvents one by one; `latest_ms` is what an event's time may be at most.

    Raises:
        InvalidRequest: With all violations, if there are too many events, or none of them is sound.
    """
    wrong = Violations()
    wrong.count("events", len(request.events), MAX_EVENTS)
    wrong.raise_if_any()
    return _some_sound([_event(f"events[{at}]", event, latest_ms) for at, event in enumerate(request.events)])


def events_on_scale(
    request: pb2.WriteEventsRequest, checked: Sequence[CheckedEvent], scale: RatingScale
) -> list[CheckedEvent]:
    """Checks the ratings of events; otherwise as `events`."""
    found = list(checked)
    for position, event in enumerate(request.events):
        off_scale = event.HasField("rating") and not scale.lowest <= event.rating <= scale.highest
        if off_scale and not found[position].violations:
            violation = Violation(f"events[{position}].rating", f"must be {scale}")
            found[position] = CheckedEvent(0, RATING_OFF_SCALE, [violation])
    return _some_sound(found)


def _some_sound(found: list[CheckedEvent]) -> list[CheckedEvent]:
    if all(event.violations for event in found):
        raise InvalidRequest([violation for event in found for violation in event.violations])
    return found


def _event(path: str, event: pb2.Event, latest_ms: int) -> CheckedEvent:
    wrong = Violations()
    wrong.external_id(f"{path}.event_id", event.event_id)
    wrong.external_id(f"{path}.user_id", event.user_id)
    wrong.external_id(f"{path}.movie_id", event.movie_id)
    if event.HasField("rating") and not (math.isfinite(event.rating) and abs(event.rating) <= MAX_RATING):
        wrong.add(f"{path}.rating", f"must be finite, {ANY_SCALE}")
    time_ms = 0
    if event.HasField("event_time"):
        time_ms = _time_ms(wrong, f"{path}.event_time", event.event_time)
    else:
        wrong.add(f"{path}.event_time", "is required")
    if not wrong.found and time_ms > latest_ms:
        wrong.add(f"{path}.event_time", "is too far ahead of the service's clock")
        return CheckedEvent(time_ms, EVENT_TIME_IN_FUTURE, wrong.found)
    return CheckedEvent(time_ms, EVENT_INVALID if wrong.found else "", wrong.found)


def rating_scale(request: pb2.BatchUpsertMoviesRequest) -> RatingScale | None:
    """Checks the scale of BatchUpsertMovies; None if it gives none."""
    if not request.HasField("rating_scale"):
        return None
    wrong = Violations()
    given = RatingScale(request.rating_scale.lowest, request.rating_scale.highest)
    for name, end in given._asdict().items():
        if not abs(end) <= MAX_RATING:
            wrong.add(f"rating_scale.{name}", f"must be {ANY_SCALE}")
    if not wrong.found and given.lowest >= given.highest:
        wrong.add("rating_scale.highest", "must be above lowest")
    wrong.raise_if_any()
    return given


def user_id(request: pb2.DeleteUserRequest) -> str:
    """Checks DeleteUser."""
    wrong = Violations()
    wrong.external_id("user_id", request.user_id)
    wrong.raise_if_any()
    return request.user_id


def import_rows(request: pb2.ImportHistoriesRequest, latest_ms: int) -> ImportRows:
    """Checks ImportHistories; `latest_ms` as of `events`."""
    wrong = Violations()
    wrong.ids("user_ids", request.user_ids, MAX_USERS, distinct=True)
    if wrong.at_most("movie_ids", len(request.movie_ids), MAX_IMPORT_MOVIES) and request.movie_ids:
        wrong.ids("movie_ids", request.movie_ids, MAX_IMPORT_MOVIES, distinct=True)
    lengths = _array(wrong, "lengths", request.lengths, "<u4").astype(np.int64)
    movie_indices = _array(wrong, "movie_indices", request.movie_indices, "<u4").astype(np.int64)
    ratings = _array(wrong, "ratings", request.ratings, "<f4").astype(np.float32)
    times_ms = _array(wrong, "event_times_ms", request.event_times_ms, "<i8").astype(np.int64)
    num_entries = int(lengths.sum())
    if len(lengths) != len(request.user_ids):
        wrong.add("lengths", f"must have one value per user, {len(request.user_ids)}, not {len(lengths)}")
    if num_entries > MAX_IMPORT_ENTRIES:
        wrong.add("lengths", f"must add up to at most {MAX_IMPORT_ENTRIES}, not {num_entries}")
    for name, column in (("movie_indices", movie_indices), ("ratings", ratings), ("event_times_ms", times_ms)):
        if len(column) != num_entries:
            wrong.add(name, f"must have as many values as lengths adds up to, {num_entries}, not {len(column)}")
    _each(wrong, "movie_indices", movie_indices >= len(request.movie_ids), "must be a position in movie_ids")
    _each(wrong, "ratings", _off(ratings, ANY_SCALE), f"must be NaN or {ANY_SCALE}")
    is_no_time = (times_ms < 0) | (times_ms > MAX_TIME_MS)
    _each(wrong, "event_times_ms", is_no_time, f"must be 0 to {MAX_TIME_MS}")
    _each(wrong, "event_times_ms", ~is_no_time & (times_ms > latest_ms), "is too far ahead of the service's clock")
    wrong.raise_if_any()
    return ImportRows(request.user_ids, request.movie_ids, lengths, movie_indices, ratings, times_ms)


def ratings_on_scale(rows: ImportRows, scale: RatingScale) -> None:
    """Checks the ratings of an import."""
    wrong = Violations()
    _each(wrong, "ratings", _off(rows.ratings, scale), f"must be NaN or {scale}")
    wrong.raise_if_any()


def _off(ratings: NDArray[np.float32], scale: RatingScale) -> NDArray[np.bool_]:
    return (ratings < np.float32(scale.lowest)) | (ratings > np.float32(scale.highest))


def export_page_size(request: pb2.ExportEventsRequest) -> int:
    """Returns how many log entries a page may have."""
    wrong = Violations()
    if request.page_size and not NUM_PARTITIONS <= request.page_size <= MAX_EXPORT_PAGE:
        wrong.add("page_size", f"must be 0 or {NUM_PARTITIONS} to {MAX_EXPORT_PAGE}")
    wrong.raise_if_any()
    return request.page_size or MAX_EXPORT_PAGE


def export_name(request: pb2.RegisterExportRequest) -> None:
    """Checks the name of who exports."""
    wrong = Violations()
    wrong.text("name", request.name, 1, MAX_EXPORT_NAME_BYTES)
    wrong.raise_if_any()


@contextmanager
def positions() -> Iterator[None]:
    """Refuses a request whose position is none."""
    try:
        yield
    except PositionError as error:
        raise InvalidRequest([Violation("position", str(error))]) from error


def _profile(wrong: Violations, path: str, profile: user_pb2.UserProfile) -> Profile:
    # Absent fields are not listed, present ones are even if they hold 0 or "".
    given = Profile(**{field.name: value for field, value in profile.ListFields()})
    for name, highest in _TEXT_BYTES.items():
        text = getattr(given, name)
        if text is not None:
            wrong.text(f"{path}.{name}", text, 1, highest)
    if given.age is not None and given.age > MAX_AGE:
        wrong.add(f"{path}.age", f"must be 0 to {MAX_AGE}")
    return given


def _time_ms(wrong: Violations, path: str, time: Timestamp) -> int:
    if not 0 <= time.nanos <= 999_999_999 or not 0 <= time.seconds <= MAX_TIME_MS // 1000:
        wrong.add(path, "must be from 1970 to 9999")
    elif time.nanos % 1_000_000:
        wrong.add(path, "must be a whole number of milliseconds")
    return time.seconds * 1000 + time.nanos // 1_000_000


def _array(wrong: Violations, path: str, payload: bytes, dtype: str) -> NDArray[np.generic]:
    width = np.dtype(dtype).itemsize
    if len(payload) % width:
        wrong.add(path, f"has {len(payload)} bytes, which is no multiple of {width}")
    return np.frombuffer(payload[: len(payload) // width * width], dtype)


def _each(wrong: Violations, path: str, bad: NDArray[np.bool_], description: str) -> None:
    """Notes the values that are bad, up to a number that nobody reads anyway."""
    for position in np.flatnonzero(bad)[:100].tolist():
        wrong.add(f"{path}[{position}]", description)
