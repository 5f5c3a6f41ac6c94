"""Events are taken in one by one, each with its own fate."""

import time

import pytest
from marquee.client.user_version import UserVersion
from marquee.v1 import feature_service_pb2 as pb2

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
