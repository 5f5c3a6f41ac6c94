"""Every limit that the contract states holds: just inside is taken, just outside is refused by name."""

import math
import time

import grpc.aio
import numpy as np
import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from marquee.client.errors import read_error
from marquee.v1 import feature_service_pb2 as pb2
from marquee.v1 import movie_pb2

from feature_service.request_checks import MAX_TIME_MS
from tests.feature_service import messages as make

ID = "x" * 128
LONG_ID = ID + "x"
NAMES = [f"{i:064d}" for i in range(65)]


def many(number: int) -> list[str]:
    return [f"m{i}" for i in range(number)]


def bags(num_bags: int, num_values: int) -> dict[str, movie_pb2.MovieBag]:
    """Returns values spread over bags."""
    found = {f"bag{i}": movie_pb2.MovieBag() for i in range(num_bags)}
    for i in range(num_values):
        found[f"bag{i % num_bags}"].values.append(NAMES[i])
    return found


def movie(**fields) -> pb2.BatchUpsertMoviesRequest:
    return make.upsert_movies(movie_pb2.Movie(**{"movie_id": "new", **fields}))


def scale(lowest: float, highest: float) -> pb2.BatchUpsertMoviesRequest:
    request = movie()
    request.rating_scale.CopyFrom(pb2.RatingScale(lowest=lowest, highest=highest))
    return request


def event(**fields) -> pb2.WriteEventsRequest:
    return make.write(make.event(**fields))


def event_at(seconds: int, nanos: int) -> pb2.WriteEventsRequest:
    request = make.write(make.event())
    request.events[0].event_time.CopyFrom(Timestamp(seconds=seconds, nanos=nanos))
    return request


def history(num_entries: int, **fields) -> pb2.ImportHistoriesRequest:
    """Returns an import of one user who watched m0 so often."""
    columns = {
        "user_ids": ["u"],
        "lengths": np.array([num_entries], "<u4").tobytes(),
        "movie_ids": ["m0"],
        "movie_indices": bytes(4 * num_entries),
        "ratings": bytes(4 * num_entries),
        "event_times_ms": bytes(8 * num_entries),
    }
    return pb2.ImportHistoriesRequest(**{**columns, **fields})


def floats(*values: float) -> bytes:
    return np.array(values, "<f4").tobytes()


def times(*values: int) -> bytes:
    return np.array(values, "<i8").tobytes()


COLUMNS = {"view": pb2.USER_VIEW_COLUMNS}
INSIDE = [
    make.users(*[ID] * 1000, history_limit=20),
    make.users("u", history_limit=1000),
    make.users("u", history_limit=0),
    make.users(*many(100)),
    make.users(*many(1000), **COLUMNS),
    make.users(*many(200), history_limit=1000, **COLUMNS),
    make.users(*many(250), include_seen=True, **COLUMNS),
    pb2.BatchGetMoviesRequest(movie_ids=many(500)),
    pb2.ListMoviesRequest(page_size=500),
    pb2.BatchUpsertUsersRequest(users=[pb2.UserUpsert(user_id=name) for name in many(1000)]),
    make.upsert_user(ID, gender="x" * 32, age=150, occupation="x" * 64, zip="x" * 32),
    make.upsert_user(age=0),
    movie(movie_id=ID, title="x" * 512, year=2200, genres=NAMES[:32]),
    movie(year=1800, title="", bags=bags(8, 64)),
    movie(title="It\x92s a\ttitle", genres=["Sci\nFi"]),
    movie(bags={"b" * 64: movie_pb2.MovieBag(values=NAMES[:1])}),
    event(event_id=ID, user_id=ID, rating=1000.0, time_ms=0),
    event(rating=-1000.0),
    event_at(1, 999_000_000),
    make.write(*[make.event()] * 1000),
    history(50_000),
    history(1, ratings=floats(math.nan), event_times_ms=times(0)),
    history(0),
    pb2.DeleteUserRequest(user_id=ID),
]
OUTSIDE = [
    (make.users(), "user_ids"),
    (make.users(*many(1001), history_limit=0), "user_ids"),
    (make.users("a", ""), "user_ids[1]"),
    (make.users(LONG_ID), "user_ids[0]"),
    (make.users("ü" * 65), "user_ids[0]"),
    (make.users("a\nb"), "user_ids[0]"),
    (make.users("u", history_limit=1001), "history_limit"),
    (make.users(*many(101)), "user_ids"),
    (make.users(*many(21), history_limit=1000), "user_ids"),
    (make.users(*many(201), history_limit=1000, **COLUMNS), "user_ids"),
    (make.users(*many(251), include_seen=True, **COLUMNS), "user_ids"),
    (make.users("u", include_seen=True), "include_seen"),
    (make.users("u", view=7), "view"),
    (pb2.BatchGetMoviesRequest(), "movie_ids"),
    (pb2.BatchGetMoviesRequest(movie_ids=many(501)), "movie_ids"),
    (pb2.BatchGetMoviesRequest(movie_ids=[LONG_ID]), "movie_ids[0]"),
    (pb2.BatchGetMoviesRequest(movie_ids=["a\x1f"]), "movie_ids[0]"),
    (pb2.ListMoviesRequest(page_size=501), "page_size"),
    (pb2.ListMoviesRequest(page_token="?"), "page_token"),
    (pb2.ListMoviesRequest(page_token="WzEsMiwzLDRd"), "page_token"),
    (pb2.ListMoviesRequest(page_token="e30="), "page_token"),
    (pb2.BatchUpsertUsersRequest(), "users"),
    (pb2.BatchUpsertUsersRequest(users=[pb2.UserUpsert(user_id=name) for name in many(1001)]), "users"),
    (pb2.BatchUpsertUsersRequest(users=[pb2.UserUpsert(user_id="u")] * 2), "users[1]"),
    (make.upsert_user(""), "users[0].user_id"),
    (make.upsert_user(gender=""), "users[0].profile.gender"),
    (make.upsert_user(gender="x" * 33), "users[0].profile.gender"),
    (make.upsert_user(age=151), "users[0].profile.age"),
    (make.upsert_user(occupation="x" * 65), "users[0].profile.occupation"),
    (make.upsert_user(zip="x" * 33), "users[0].profile.zip"),
    (make.upsert_user(clear_fields=("name",)), "users[0].clear_fields[0]"),
    (make.upsert_user(clear_fields=("age",) * 33), "users[0].clear_fields"),
    (make.upsert_user(clear_fields=("age",), age=0), "users[0].clear_fields[0]"),
    (pb2.BatchUpsertMoviesRequest(), "movies"),
    (make.movies(501), "movies"),
    (make.upsert_movies(*[movie_pb2.Movie(movie_id="m")] * 2), "movies[1]"),
    (movie(movie_id=""), "movies[0].movie.movie_id"),
    (movie(movie_id="\x01"), "movies[0].movie.movie_id"),
    (scale(5, 1), "rating_scale.highest"),
    (scale(math.nan, 1), "rating_scale.lowest"),
    (scale(1, 1001), "rating_scale.highest"),
    (movie(title="x" * 513), "movies[0].movie.title"),
    (movie(year=1799), "movies[0].movie.year"),
    (movie(year=2201), "movies[0].movie.year"),
    (movie(genres=NAMES[:33]), "movies[0].movie.genres"),
    (movie(genres=[""]), "movies[0].movie.genres[0]"),
    (movie(genres=["x" * 65]), "movies[0].movie.genres[0]"),
    (movie(genres=["a", "a"]), "movies[0].movie.genres[1]"),
    (movie(bags=bags(9, 9)), "movies[0].movie.bags"),
    (movie(bags=bags(8, 65)), "movies[0].movie.bags"),
    (movie(bags={"": movie_pb2.MovieBag()}), "movies[0].movie.bags['']"),
    (movie(bags={"b" * 65: movie_pb2.MovieBag()}), f"movies[0].movie.bags['{'b' * 64}']"),
    (movie(bags={"b": movie_pb2.MovieBag(values=["x" * 65])}), "movies[0].movie.bags['b'].values[0]"),
    (movie(bags={"b": movie_pb2.MovieBag(values=["x", "x"])}), "movies[0].movie.bags['b'].values[1]"),
    (make.upsert_movies(movie_pb2.Movie(movie_id="m"), clear_fields=("removed",)), "movies[0].clear_fields[0]"),
    (make.upsert_movies(movie_pb2.Movie(movie_id="m"), clear_fields=("year",) * 33), "movies[0].clear_fields"),
    (make.upsert_movies(movie_pb2.Movie(movie_id="m", year=2000), clear_fields=("year",)), "movies[0].clear_fields[0]"),
    (
        make.upsert_movies(movie_pb2.Movie(movie_id="m", bags={"b": movie_pb2.MovieBag()}), clear_fields=("bags.b",)),
        "movies[0].clear_fields[0]",
    ),
    (pb2.WriteEventsRequest(), "events"),
    (make.write(*[make.event()] * 1001), "events"),
    (event(event_id=""), "events[0].event_id"),
    (event(event_id=LONG_ID), "events[0].event_id"),
    (event(event_id="a\x00"), "events[0].event_id"),
    (event(movie_id="a\nb"), "events[0].movie_id"),
    (event(user_id="a\x9f"), "events[0].user_id"),
    (event(time_ms=int(time.time() * 1000) + 2 * 86_400_000), "events[0].event_time"),
    (event(user_id=""), "events[0].user_id"),
    (event(user_id=LONG_ID), "events[0].user_id"),
    (event(movie_id=""), "events[0].movie_id"),
    (event(movie_id=LONG_ID), "events[0].movie_id"),
    (event(rating=math.nan), "events[0].rating"),
    (event(rating=math.inf), "events[0].rating"),
    (event(rating=1001.0), "events[0].rating"),
    (event(rating=-1001.0), "events[0].rating"),
    (pb2.WriteEventsRequest(events=[pb2.Event(event_id="e", user_id="u", movie_id="m0")]), "events[0].event_time"),
    (event_at(1, 1), "events[0].event_time"),
    (event_at(-1, 0), "events[0].event_time"),
    (event_at(253_402_300_800, 0), "events[0].event_time"),
    (event_at(0, 1_000_000_000), "events[0].event_time"),
    (history(0, user_ids=[], lengths=b""), "user_ids"),
    (history(0, user_ids=many(1001), lengths=bytes(4004)), "user_ids"),
    (history(0, user_ids=["u", "u"], lengths=bytes(8)), "user_ids[1]"),
    (history(0, user_ids=[LONG_ID]), "user_ids[0]"),
    (history(50_001), "lengths"),
    (history(1, lengths=bytes(3)), "lengths"),
    (history(1, lengths=bytes(8)), "lengths"),
    (history(1, lengths=bytes(4)), "ratings"),
    (history(0, movie_ids=many(20_001)), "movie_ids"),
    (history(1, movie_ids=["m0", "m0"]), "movie_ids[1]"),
    (history(1, movie_ids=[""]), "movie_ids[0]"),
    (history(1, movie_ids=["a\x1f"]), "movie_ids[0]"),
    (history(1, movie_indices=b"\1\0\0\0"), "movie_indices[0]"),
    (history(1, movie_indices=bytes(8)), "movie_indices"),
    (history(1, ratings=bytes(3)), "ratings"),
    (history(1, ratings=floats(math.inf)), "ratings[0]"),
    (history(1, ratings=floats(1001)), "ratings[0]"),
    (history(1, event_times_ms=times(-1)), "event_times_ms[0]"),
    (history(1, event_times_ms=times(MAX_TIME_MS + 1)), "event_times_ms[0]"),
    (history(1, event_times_ms=times(MAX_TIME_MS)), "event_times_ms[0]"),
    (pb2.DeleteUserRequest(), "user_id"),
    (pb2.DeleteUserRequest(user_id=LONG_ID), "user_id"),
    (pb2.DeleteUserRequest(user_id="a\x7f"), "user_id"),
]


async def send(stub, request):
    """Sends a request to the RPC that takes it."""
    return await getattr(stub, type(request).__name__.removesuffix("Request"))(request)


@pytest.fixture
async def stub(feature_stub):
    await feature_stub.BatchUpsertMovies(make.movies(1))
    return feature_stub


@pytest.mark.parametrize("request_", INSIDE, ids=lambda request: type(request).__name__)
async def test_just_inside_is_taken(stub, request_):
    """The largest request that the contract allows is answered."""
    await send(stub, request_)


async def test_just_outside_is_refused_by_name(stub):
    """One beyond each limit is INVALID_ARGUMENT, names the field, and has changed nothing."""
    before = await stub.GetStoreInfo(pb2.GetStoreInfoRequest())
    for request, field in OUTSIDE:
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await send(stub, request)

        error = read_error(raised.value)
        assert error.code is grpc.StatusCode.INVALID_ARGUMENT, (field, error)
        assert field in [violation.field for violation in error.violations], (field, error)
    assert await stub.GetStoreInfo(pb2.GetStoreInfoRequest()) == before
    user = (await stub.BatchGetUsers(make.users("u"))).users[0]
    assert user.user_version.endswith(".0")


# A message of 4 MiB full of them, each of which is wrong.
MANY_EMPTY = [""] * 2_000_000


@pytest.mark.parametrize(
    "request_",
    [
        movie(genres=MANY_EMPTY),
        movie(bags={"b": movie_pb2.MovieBag(values=MANY_EMPTY)}),
        make.upsert_movies(movie_pb2.Movie(movie_id="m"), clear_fields=tuple(MANY_EMPTY)),
        make.upsert_user(clear_fields=tuple(MANY_EMPTY)),
        pb2.BatchGetUsersRequest(user_ids=MANY_EMPTY),
        pb2.BatchGetMoviesRequest(movie_ids=MANY_EMPTY),
        history(0, movie_ids=MANY_EMPTY),
    ],
    ids=["genres", "bag values", "movie clear_fields", "user clear_fields", "users", "movies", "imported movies"],
)
async def test_a_list_far_too_long_is_refused_unread(stub, request_):
    """Millions of mistakes in one message are one violation: reading them all would keep everybody else waiting."""
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await send(stub, request_)

    assert raised.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert len(read_error(raised.value).violations) <= 2


async def test_all_violations_are_named_at_once(stub):
    """A caller with three mistakes learns of three."""
    request = make.write(make.event(event_id="", rating=math.nan), make.event(user_id="\x00"))

    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await stub.WriteEvents(request)

    fields = [violation.field for violation in read_error(raised.value).violations]
    assert fields == ["events[0].event_id", "events[0].rating", "events[1].user_id"]


async def test_a_movie_never_outgrows_its_limits_by_upserts(stub):
    """Bags that fit one by one are refused once they do not fit together, and what is stored stays, the scale too."""
    await stub.BatchUpsertMovies(movie(bags=bags(8, 60)))
    too_much = movie(bags={"more": movie_pb2.MovieBag(values=NAMES[:5])})
    too_much.rating_scale.CopyFrom(pb2.RatingScale(lowest=1, highest=5))

    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await stub.BatchUpsertMovies(too_much)

    descriptions = [violation.description for violation in read_error(raised.value).violations]
    assert descriptions == [
        "would make 9 bags with those stored, at most 8",
        "would make 65 values with those stored, at most 64",
    ]
    stored = await stub.BatchGetMovies(pb2.BatchGetMoviesRequest(movie_ids=["new"]))
    assert len(stored.movies[0].bags) == 8
    assert not (await stub.GetStoreInfo(pb2.GetStoreInfoRequest())).HasField("rating_scale")
