"""Makes requests that should pass validation, from their descriptors and from what a running stack knows.

A field that nobody named a rule for is filled by its type: a field or an RPC that comes to the contract is fuzzed as it
comes, and the share of sound requests shows where a rule is wanted.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from google.protobuf import message_factory
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import strategies as st
from marquee.v1 import feature_service_pb2, model_service_pb2, movie_pb2

from tests.fuzz.known_values import KnownValues

Draw = Callable[[st.SearchStrategy[Any]], Any]
LATEST_S = 1_700_000_000
_FEW = 4
_WORDS = ["Heat", "千と千尋", "e\u0301", "'; --", "0", "🎬", "a.b:c", "عربي", "x" * 60]
# Sub-messages without which a request says nothing.
_ALWAYS = {"user", "movie", "profile", "event_time"}

# Lists of a request that reads: what is asked twice is answered twice.
_REPEATABLE = {"user_ids", "movie_ids"}


class SoundMessages:
    """Strategies for sound messages of any type of the contract."""

    def __init__(self, known: KnownValues) -> None:
        """Stores what there is to ask for."""
        self._known = known
        words = st.sampled_from(_WORDS)
        # Mostly who is there; now and then somebody new.
        users = st.sampled_from([*known.user_ids, *(f"new {word}" for word in _WORDS)])
        movies = st.sampled_from(list(known.movie_ids))
        new_movies = st.sampled_from([*known.movie_ids, *(f"new {word}" for word in _WORDS)])
        stars = st.integers(1, 10).map(lambda halves: halves / 2)
        genres = st.sampled_from([*known.genres]) if known.genres else st.nothing()
        versions = st.sampled_from([*known.model_versions]) if known.model_versions else st.nothing()
        labels = st.sampled_from([*known.labels]) if known.labels else st.nothing()
        self._by_name: dict[str, st.SearchStrategy[Any]] = {
            "user_id": users,
            "user_ids": users,
            "movie_id": movies,
            "movie_ids": movies,
            "Movie.movie_id": new_movies,
            "genres": st.sampled_from([*known.genres, "Fuzzed"]),
            "genres_any": genres,
            "genres_all": genres,
            "genres_none": genres,
            "rating": stars,
            "model_version": versions,
            "label": labels,
            "SetLabelRequest.label": st.sampled_from([*known.labels, "fuzzed"]),
            "reason": words,
            "percent": st.sampled_from([0.1, 5.0, 100.0]),
            "history_limit": st.sampled_from([0, 1, 5, 200, 1000]),
            "ListMoviesRequest.page_size": st.sampled_from([0, 1, 7, 500]),
            "ListMoviesRequest.page_token": st.sampled_from(["", *known.page_tokens]),
            "since_catalogue_version": st.sampled_from([0, 1, known.catalogue_version]),
            "ExportEventsRequest.page_size": st.sampled_from([0, 64, 1000, 10_000]),
            "ExportEventsRequest.position": st.sampled_from(["", *known.log_positions]),
            "RegisterExportRequest.position": st.sampled_from(["", *known.log_positions]),
            "StreamChangesRequest.position": st.sampled_from(["", *known.change_positions]),
            "UserUpsert.clear_fields": st.sampled_from(["gender", "age", "occupation", "zip"]),
            "MovieUpsert.clear_fields": st.sampled_from(["title", "year", "genres", "bags.cast"]),
            "gender": st.sampled_from(["M", "F", "x"]),
            "age": st.integers(0, 150),
            "year": st.integers(1800, 2200),
            "year_min": st.integers(1800, 1990),
            "year_max": st.integers(1990, 2200),
            # A movie that is taken from the catalogue cannot be asked for: too many of those and little is left.
            "removed": st.just(False),
            "k": st.sampled_from([1, 2, 5, 20]),
            "diversity": st.sampled_from([0.0, 0.0, 0.3, 1.0]),
            "explain": st.sampled_from([0, 0, 1, 5]),
            "min_user_version": st.just(""),
            "min_user_versions": st.nothing(),
            "event_id": st.integers(0, 10_000).map(str) | words,
        }
        self._repairs: dict[str, Callable[[Any], None]] = {
            "marquee.v1.BatchGetUsersRequest": _seen_in_columns_only,
            "marquee.v1.ListMoviesRequest": _one_listing,
            "marquee.v1.UserSelector": self._repair_user,
            "marquee.v1.InlineUser": _timed_alike_in_history,
            "marquee.v1.BatchUpsertUsersRequest": _users_once,
            "marquee.v1.BatchUpsertMoviesRequest": _movies_once,
        }
        self._whole: dict[str, Callable[[Draw], Message]] = {
            "google.protobuf.Timestamp": _moment,
            "marquee.v1.RatingScale": lambda draw: feature_service_pb2.RatingScale(lowest=0.5, highest=5),
            "marquee.v1.ImportHistoriesRequest": self._import,
            "marquee.v1.BatchPredictRatingsRequest": self._pairs,
        }

    def of(self, descriptor: Descriptor) -> st.SearchStrategy[Message]:
        """Returns a strategy for messages of a type."""

        @st.composite
        def messages(draw: Draw) -> Message:
            return self._make(draw, descriptor)

        return messages()

    def _make(self, draw: Draw, descriptor: Descriptor) -> Message:
        whole = self._whole.get(descriptor.full_name)
        if whole is not None:
            return whole(draw)
        message = message_factory.GetMessageClass(descriptor)()
        chosen = {}
        for alternatives in descriptor.oneofs:
            if not _is_synthetic(alternatives):
                chosen[alternatives.name] = draw(st.sampled_from([field.name for field in alternatives.fields]))
        for field in descriptor.fields:
            oneof: Any = field.containing_oneof
            if oneof is not None and not _is_synthetic(oneof) and chosen[oneof.name] != field.name:
                continue
            optional = field.has_presence and field.name not in _ALWAYS and (oneof is None or _is_synthetic(oneof))
            if not optional or draw(st.booleans()):
                self._fill(draw, message, field)
        repair = self._repairs.get(descriptor.full_name)
        if repair is not None:
            repair(message)
        return message

    def _fill(self, draw: Draw, message: Any, field: Any) -> None:
        if _is_map(field):
            bags = getattr(message, field.name)
            for name in draw(st.lists(st.sampled_from(["cast", "crew"]), max_size=2, unique=True)):
                bags[name].CopyFrom(movie_pb2.MovieBag(values=draw(st.lists(st.sampled_from(_WORDS), unique=True))))
        elif field.message_type is not None:
            if field.is_repeated:
                for _ in range(draw(st.integers(1, _FEW))):
                    getattr(message, field.name).add().CopyFrom(self._make(draw, field.message_type))
            else:
                getattr(message, field.name).CopyFrom(self._make(draw, field.message_type))
        else:
            values = self._values(field)
            if values.is_empty:
                return
            if field.is_repeated:
                required = field.name in ("user_ids", "movie_ids") and field.containing_type.name != "MovieList"
                lists = st.lists(values, min_size=int(required), max_size=_FEW, unique=field.name not in _REPEATABLE)
                getattr(message, field.name).extend(draw(lists))
            else:
                setattr(message, field.name, draw(values))

    def _values(self, field: Any) -> st.SearchStrategy[Any]:
        for name in (f"{field.containing_type.name}.{field.name}", field.name):
            if name in self._by_name:
                return self._by_name[name]
        if field.enum_type is not None:
            return st.sampled_from([value.number for value in field.enum_type.values])
        kind = field.cpp_type
        if kind == FieldDescriptor.CPPTYPE_STRING:
            return st.binary(max_size=16) if field.type == FieldDescriptor.TYPE_BYTES else st.sampled_from(_WORDS[:-1])
        if kind == FieldDescriptor.CPPTYPE_BOOL:
            return st.booleans()
        if kind in (FieldDescriptor.CPPTYPE_FLOAT, FieldDescriptor.CPPTYPE_DOUBLE):
            return st.sampled_from([0.0, 0.5, 1.0])
        return st.integers(0, 20)

    def _repair_user(self, user: model_service_pb2.UserSelector) -> None:
        _timed_alike(user.session_events)
        if user.WhichOneof("selector") == "user_id":
            user.min_user_version = self._known.user_versions.get(user.user_id, "")

    def _import(self, draw: Draw) -> Message:
        users = draw(st.lists(self._by_name["user_id"], min_size=1, max_size=_FEW, unique=True))
        movies = draw(st.lists(self._by_name["movie_id"], min_size=1, max_size=_FEW, unique=True))
        lengths = draw(st.lists(st.integers(0, 5), min_size=len(users), max_size=len(users)))
        entries = range(sum(lengths))
        indices = [draw(st.integers(0, len(movies) - 1)) for _ in entries]
        stars = [draw(st.sampled_from([float("nan"), 0.5, 3.0, 5.0])) for _ in entries]
        times = [draw(st.sampled_from([0, 1, LATEST_S * 1000])) for _ in entries]
        return feature_service_pb2.ImportHistoriesRequest(
            user_ids=users,
            lengths=np.array(lengths, "<u4").tobytes(),
            movie_ids=movies,
            movie_indices=np.array(indices, "<u4").tobytes(),
            ratings=np.array(stars, "<f4").tobytes(),
            event_times_ms=np.array(times, "<i8").tobytes(),
        )

    def _pairs(self, draw: Draw) -> Message:
        users = draw(st.lists(self._by_name["user_id"], min_size=1, max_size=_FEW, unique=True))
        movies = draw(st.lists(self._by_name["movie_id"], min_size=1, max_size=_FEW, unique=True))
        num_pairs = draw(st.integers(1, 2 * _FEW))
        request = model_service_pb2.BatchPredictRatingsRequest(
            user_ids=users,
            movie_ids=movies,
            user_indices=[draw(st.integers(0, len(users) - 1)) for _ in range(num_pairs)],
            movie_indices=[draw(st.integers(0, len(movies) - 1)) for _ in range(num_pairs)],
            with_stddev=draw(st.booleans()),
        )
        if draw(st.booleans()):
            request.min_user_versions.extend(self._known.user_versions.get(user, "") for user in users)
        return request


def _moment(draw: Draw) -> Message:
    seconds = draw(st.sampled_from([0, 1, 978_300_760, LATEST_S - 1, LATEST_S]))
    return Timestamp(seconds=seconds, nanos=draw(st.sampled_from([0, 1_000_000, 999_000_000])))


def _seen_in_columns_only(request: feature_service_pb2.BatchGetUsersRequest) -> None:
    if request.view != feature_service_pb2.USER_VIEW_COLUMNS:
        request.include_seen = False


def _one_listing(request: feature_service_pb2.ListMoviesRequest) -> None:
    if request.page_token:
        request.since_catalogue_version = 0


def _timed_alike(entries: Sequence[Any]) -> None:
    if entries and not entries[0].HasField("rating"):
        for entry in entries:
            entry.ClearField("event_time")


def _timed_alike_in_history(user: model_service_pb2.InlineUser) -> None:
    _timed_alike(user.history)


def _users_once(request: feature_service_pb2.BatchUpsertUsersRequest) -> None:
    _once(request.users, lambda upsert: upsert.user_id)
    for upsert in request.users:
        _cleared_or_set(upsert.clear_fields, {field.name for field, _ in upsert.profile.ListFields()})


def _movies_once(request: feature_service_pb2.BatchUpsertMoviesRequest) -> None:
    _once(request.movies, lambda upsert: upsert.movie.movie_id)
    for upsert in request.movies:
        named = {field.name for field, _ in upsert.movie.ListFields()}
        _cleared_or_set(upsert.clear_fields, named | {f"bags.{name}" for name in upsert.movie.bags})


def _once(rows: Any, key: Callable[[Any], str]) -> None:
    by_key = {key(row): row for row in rows}
    kept = list(by_key.values())
    del rows[:]
    rows.extend(kept)


def _cleared_or_set(clear_fields: Any, named: set[str]) -> None:
    kept = [name for name in clear_fields if name not in named]
    del clear_fields[:]
    clear_fields.extend(kept)


def _is_synthetic(oneof: Any) -> bool:
    """Tells a oneof of the contract from the one that stands for `optional`."""
    return len(oneof.fields) == 1 and oneof.name == f"_{oneof.fields[0].name}"


def _is_map(field: FieldDescriptor) -> bool:
    return field.message_type is not None and bool(field.message_type.GetOptions().map_entry)
