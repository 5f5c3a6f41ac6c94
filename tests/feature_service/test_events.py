"""Events are taken in one by one, each with its own fate."""

import math
import time

import grpc
import pytest
from marquee.client.channel import open_channel
from marquee.client.errors import Violation, read_error
from marquee.client.user_version import UserVersion
from marquee.v1 import feature_service_pb2 as pb2
from marquee.v1 import feature_service_pb2_grpc

from feature_service.__main__ import serving
from feature_service.settings import FeatureSettings
from tests.feature_server import until_ready
from tests.feature_service import messages as make

APPLIED, DUPLICATE = pb2.EVENT_STATUS_APPLIED, pb2.EVENT_STATUS_DUPLICATE
STALE, REFUSED = pb2.EVENT_STATUS_STALE, pb2.EVENT_STATUS_REFUSED


@pytest.fixture
async def stub(feature_stub):
    """A store with 300 movies."""
    await feature_stub.BatchUpsertMovies(make.movies(300))
    return feature_stub


async def statuses(stub, *events: pb2.Event) -> list[int]:
    reply = await stub.WriteEvents(make.write(*events))
    return [result.status for result in reply.results]


async def test_each_event_has_its_fate(stub):
    """New, repeated, older, of an unknown movie and from the future, in one call."""
    tomorrow_ms = int(time.time() * 1000) + 2 * 86_400_000

    reply = await stub.WriteEvents(
        make.write(
            make.event("a", time_ms=500),
            make.event("a", time_ms=500),
            make.event("b", time_ms=400),
            make.event("c", movie_id="nope"),
            make.event("d", movie_id="m1", time_ms=tomorrow_ms),
            make.event("e", movie_id="m2", user_id="v"),
        )
    )

    assert [result.status for result in reply.results] == [APPLIED, DUPLICATE, STALE, REFUSED, REFUSED, APPLIED]
    assert [result.reason for result in reply.results[3:5]] == ["MOVIE_NOT_FOUND", "EVENT_TIME_IN_FUTURE"]
    assert "nope" in reply.results[3].message
    assert [bool(result.user_version) for result in reply.results] == [True, True, True, False, False, True]


async def test_a_bad_event_spoils_no_other(stub):
    """What is sound is stored, and the answer names the fields of each event that is not."""
    tomorrow_ms = int(time.time() * 1000) + 2 * 86_400_000
    untimed = pb2.Event(event_id="e", user_id="u", movie_id="m0")

    reply = await stub.WriteEvents(
        make.write(
            make.event("a", user_id="good"),
            make.event("b", user_id="bad\n", movie_id=""),
            make.event("c", rating=math.nan),
            make.event("d", time_ms=tomorrow_ms),
            untimed,
        )
    )

    assert [result.status for result in reply.results] == [APPLIED, REFUSED, REFUSED, REFUSED, REFUSED]
    assert [list(result.fields) for result in reply.results] == [
        [],
        ["user_id", "movie_id"],
        ["rating"],
        ["event_time"],
        ["event_time"],
    ]
    assert [result.reason for result in reply.results[1:]] == [
        "EVENT_INVALID",
        "EVENT_INVALID",
        "EVENT_TIME_IN_FUTURE",
        "EVENT_INVALID",
    ]
    assert reply.results[1].message == (
        "events[1].user_id must not hold control characters; events[1].movie_id must be 1 to 128 bytes"
    )
    users = (await stub.BatchGetUsers(make.users("good", "u"))).users
    assert [len(user.history) for user in users] == [1, 0]


async def test_the_catalogue_says_which_ratings_there_are(stub):
    """Ratings off its scale are refused one by one, and by name where nothing else is in the call; its ends count."""
    upsert = make.movies(1)
    upsert.rating_scale.CopyFrom(pb2.RatingScale(lowest=0.5, highest=5))
    await stub.BatchUpsertMovies(upsert)

    reply = await stub.WriteEvents(
        make.write(make.event("a", rating=0.5), make.event("b", "v", rating=5.1), make.event("c", "w", rating=5))
    )
    with pytest.raises(grpc.aio.AioRpcError) as alone:
        await stub.WriteEvents(make.write(make.event("d", rating=0)))
    with pytest.raises(grpc.aio.AioRpcError) as imported:
        await stub.ImportHistories(make.import_histories({"u": [("m1", math.nan, 1), ("m2", 6, 2)]}))

    assert [result.status for result in reply.results] == [APPLIED, REFUSED, APPLIED]
    assert (reply.results[1].reason, list(reply.results[1].fields)) == ("RATING_OFF_SCALE", ["rating"])
    assert read_error(alone.value).violations == [Violation("events[0].rating", "must be 0.5 to 5")]
    assert read_error(imported.value).violations == [Violation("ratings[1]", "must be NaN or 0.5 to 5")]
    assert (await stub.GetStoreInfo(pb2.GetStoreInfoRequest())).rating_scale.highest == 5


async def test_how_far_ahead_events_may_be_is_a_setting(redis_settings):
    """An hour ahead is refused where no second is allowed, and taken by default; imports are no way round."""
    in_an_hour_ms = int(time.time() * 1000) + 3_600_000
    event = make.event(time_ms=in_an_hour_ms)
    imported = make.import_histories({"u": [("m0", 5, 1000)], "v": [("m0", 5, in_an_hour_ms)]})
    settings = {**redis_settings, "listen": "127.0.0.1:0", "drain_timeout_s": 1.0}
    async with serving(FeatureSettings(**settings)) as server, open_channel(server.address) as channel:
        await until_ready(channel)
        stub = feature_service_pb2_grpc.FeatureServiceStub(channel)
        await stub.BatchUpsertMovies(make.movies(1))
        assert await statuses(stub, event) == [APPLIED]
        await stub.ImportHistories(imported)
    strict = FeatureSettings(**settings, event_max_ahead_s=0)
    async with serving(strict) as server, open_channel(server.address) as channel:
        await until_ready(channel)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await statuses(feature_service_pb2_grpc.FeatureServiceStub(channel), event)
        with pytest.raises(grpc.aio.AioRpcError) as refused_import:
            await feature_service_pb2_grpc.FeatureServiceStub(channel).ImportHistories(imported)

    too_far = "is too far ahead of the service's clock"
    assert read_error(refused.value).violations == [Violation("events[0].event_time", too_far)]
    assert read_error(refused_import.value).violations == [Violation("event_times_ms[1]", too_far)]


async def test_a_call_of_refused_events_alone_is_answered(stub):
    """Nothing to write is no failure."""
    assert await statuses(stub, make.event(movie_id="nope")) == [REFUSED]


async def test_retrying_a_whole_call_changes_nothing(stub):
    """The second time all events are DUPLICATE or STALE, and the version is the same."""
    events = [make.event(f"e{i}", movie_id=f"m{i % 50}", rating=i % 5, time_ms=1000 + i) for i in range(100)]
    first = await stub.WriteEvents(make.write(*events))
    stored = await stub.BatchGetUsers(make.users("u"))

    second = await stub.WriteEvents(make.write(*events))

    assert {result.status for result in second.results} == {DUPLICATE, STALE}
    assert second.results[0].user_version == first.results[0].user_version
    assert await stub.BatchGetUsers(make.users("u")) == stored


async def test_an_older_rating_completes_a_watched_movie(stub):
    """A rating that arrives after a newer unrated event is used, and the movie stays where it is."""
    await statuses(stub, make.event("a", time_ms=900))

    assert await statuses(stub, make.event("b", rating=3.5, time_ms=800)) == [APPLIED]

    entry = (await stub.BatchGetUsers(make.users("u"))).users[0].history[0]
    assert (entry.rating, entry.event_time.ToMilliseconds()) == (3.5, 900)


async def test_what_is_older_than_a_full_window_counts_as_seen_only(stub):
    """Beyond 200 movies the oldest leave the history and stay in the seen set."""
    events = [make.event(f"e{i}", movie_id=f"m{i}", time_ms=1000 + i) for i in range(250)]
    await stub.WriteEvents(make.write(*events))

    before = UserVersion.parse((await stub.BatchGetUsers(make.users("u"))).users[0].user_version)
    late = await stub.WriteEvents(make.write(make.event("late", movie_id="m299", time_ms=1)))

    user = (await stub.BatchGetUsers(make.users("u"))).users[0]
    assert late.results[0].status == STALE
    assert UserVersion.parse(late.results[0].user_version).counter > before.counter
    assert [entry.movie_id for entry in user.history] == [f"m{i}" for i in range(249, 49, -1)]
    assert user.num_watched == 251


async def test_events_of_many_users_keep_the_order_of_the_request(stub):
    """Users lie in many partitions; each answer stands where its event stood, with its own user's version."""
    events = [make.event("e", user_id=f"u{i % 90}", movie_id=f"m{i // 90}", time_ms=1000) for i in range(900)]

    reply = await stub.WriteEvents(make.write(*events))

    users = (await stub.BatchGetUsers(make.users(*(f"u{i}" for i in range(90)), history_limit=10))).users
    assert {result.status for result in reply.results} == {APPLIED}
    assert [result.user_version for result in reply.results[:90]] == [user.user_version for user in users]
    assert len({UserVersion.parse(user.user_version).partition for user in users}) > 30
    assert all(len(user.history) == 10 for user in users)
