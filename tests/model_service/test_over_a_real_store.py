"""model_service over a real feature_service on a real Redis: what one writes, the other answers from."""

import asyncio

import grpc
import numpy as np
import pytest
from marquee.client.columns import import_requests
from marquee.client.errors import read_error
from marquee.v1 import feature_service_pb2 as fpb
from marquee.v1 import model_service_pb2 as pb
from marquee.v1 import movie_pb2, user_pb2

MOVIES = {"heat": ["Drama"], "alien": ["Drama", "Horror"], "big": ["Comedy"], "up": ["Comedy", "Drama"], "new": []}


@pytest.fixture
async def store(feature_stub):
    """A store with five movies."""
    await put_movies(feature_stub, MOVIES)
    return feature_stub


@pytest.fixture
async def model(start, train, store, feature_address):
    """A service that answers from checkpoint v1 and reads from the store."""
    train("v1")
    async with start(feature_service=feature_address, catalogue_poll_s=3600.0, catalogue_patience_s=5.0) as stub:
        yield stub


async def put_movies(store, movies):
    upserts = [
        fpb.MovieUpsert(movie=movie_pb2.Movie(movie_id=movie_id, genres=genres)) for movie_id, genres in movies.items()
    ]
    for first in range(0, len(upserts), 500):
        await store.BatchUpsertMovies(fpb.BatchUpsertMoviesRequest(movies=upserts[first : first + 500]))


async def write(store, user_id, entries):
    """Writes history entries as events, the event's id being its place; returns the user's version."""
    events = [
        fpb.Event(event_id=f"{place:04}", user_id=user_id, movie_id=entry.movie_id, event_time=entry.event_time)
        for place, entry in enumerate(entries)
    ]
    for event, entry in zip(events, entries, strict=True):
        if entry.HasField("rating"):
            event.rating = entry.rating
    reply = await store.WriteEvents(fpb.WriteEventsRequest(events=events))
    assert fpb.EVENT_STATUS_REFUSED not in [result.status for result in reply.results]
    return reply.results[-1].user_version


def entry(movie_id, time_ms, rating=None):
    made = user_pb2.HistoryEntry(movie_id=movie_id, rating=rating)
    made.event_time.FromMilliseconds(time_ms)
    return made


async def top(model, user, **fields):
    return await model.TopK(pb.TopKRequest(user=user, k=100, **fields))


async def test_an_inline_user_gets_the_answer_of_a_stored_stranger(model, store):
    """Re-watched movies with and without stars, equal times and time 0: both merge alike."""
    rng = np.random.default_rng(3)
    for number in range(20):
        drawn = {(str(rng.choice(list(MOVIES))), int(rng.choice([0, 1000, 1001, 1_600_000_000_123]))) for _ in range(8)}
        history = [entry(movie_id, time_ms, [None, 1.0, 4.5][rng.integers(3)]) for movie_id, time_ms in sorted(drawn)]
        user_id, profile = f"stranger-{number}", user_pb2.UserProfile(gender="F", age=30)
        await store.BatchUpsertUsers(
            fpb.BatchUpsertUsersRequest(users=[fpb.UserUpsert(user_id=user_id, profile=profile)])
        )
        version = await write(store, user_id, history)
        rng.shuffle(history)
        inline = pb.UserSelector(inline_user=pb.InlineUser(profile=profile, history=history))

        for exclude_seen in (True, False):
            from_store = await top(model, pb.UserSelector(user_id=user_id), exclude_seen=exclude_seen)
            from_request = await top(model, inline, exclude_seen=exclude_seen)

            assert from_store.user_version == version
            from_store.user_version = ""
            assert from_request == from_store


async def test_session_events_count_as_if_they_had_been_written(model, store):
    """What-if before, the same after: the session merges as the store does."""
    await write(store, "carl", [entry("heat", 1000, 5.0), entry("big", 2000, 2.0)])
    session = [entry("heat", 3000), entry("up", 1500, 4.0), entry("big", 1000, 5.0)]

    asked = await top(model, pb.UserSelector(user_id="carl", session_events=session), exclude_seen=False)
    version = await write(store, "carl", session)
    written = await top(model, pb.UserSelector(user_id="carl", min_user_version=version), exclude_seen=False)

    assert asked.movies == written.movies
    assert asked.user_version != written.user_version


async def test_a_write_is_read_by_who_waits_for_its_version(model, store):
    """The movie is gone from the list, and the list moves."""
    before = await top(model, pb.UserSelector(user_id="dora"))
    version = await write(store, "dora", [entry("big", 1000, 5.0)])

    after = await top(model, pb.UserSelector(user_id="dora", min_user_version=version))

    assert before.source == pb.ANSWER_SOURCE_POPULAR
    assert after.source == pb.ANSWER_SOURCE_FOLDED_IN
    assert "big" not in [movie.movie_id for movie in after.movies]
    assert after.movies[0].movie_id == "up"


async def test_a_version_ahead_of_the_store_and_one_of_another_are_told_apart(model, store):
    """The first may come true; the second never will."""
    version = await write(store, "dora", [entry("big", 1000)])
    epoch, partition, counter = version.split(".")

    async def refusal(wanted):
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await top(model, pb.UserSelector(user_id="dora", min_user_version=wanted))
        return read_error(raised.value).reason

    assert await refusal(f"{epoch}.{partition}.{int(counter) + 1}") == "USER_NOT_CURRENT"
    assert await refusal(f"{'f' * 16}.{partition}.{counter}") == "FOREIGN_USER_VERSION"


async def test_a_deleted_user_is_a_stranger_to_his_own_trained_vector(model, store):
    """The deletion is later than the checkpoint's data."""
    before = await top(model, pb.UserSelector(user_id="ann"))
    deleted = await store.DeleteUser(fpb.DeleteUserRequest(user_id="ann"))

    after = await top(model, pb.UserSelector(user_id="ann", min_user_version=deleted.user_version))

    assert (before.source, after.source) == (pb.ANSWER_SOURCE_PERSONAL, pb.ANSWER_SOURCE_POPULAR)
    assert after.movies[0].movie_id == "heat"
    assert after.movies[0].score == pytest.approx(0.3)


async def test_a_new_movie_is_rated_and_recommended_without_a_restart(model, store):
    """By allow-list, from its genres."""
    await put_movies(store, {"brand new": ["Comedy"]})

    reply = await top(
        model, pb.UserSelector(user_id="bob"), filter=pb.MovieFilter(allow=pb.MovieList(movie_ids=["brand new", "up"]))
    )

    assert [(movie.movie_id, movie.cold) for movie in reply.movies] == [("brand new", True), ("up", False)]


async def test_changed_and_removed_movies_are_answered_as_they_are_now(model, store):
    """As soon as the feed has told, where the user is near: some milliseconds, with no poll in between."""
    await put_movies(store, {"new": ["Drama"]})
    changed = await top(model, pb.UserSelector(user_id="ann"))
    await store.BatchUpsertMovies(
        fpb.BatchUpsertMoviesRequest(movies=[fpb.MovieUpsert(movie=movie_pb2.Movie(movie_id="heat", removed=True))])
    )
    async with asyncio.timeout(20):
        while True:
            removed = await top(model, pb.UserSelector(user_id="ann"))
            if "heat" not in [movie.movie_id for movie in removed.movies]:
                break

    assert next(movie.score for movie in changed.movies if movie.movie_id == "new") == pytest.approx(2.0)
    assert "heat" in [movie.movie_id for movie in changed.movies]
    assert len(removed.movies) == len(changed.movies) - 1


async def test_who_has_watched_2000_movies_is_recommended_none_of_them(model, store):
    """The history window holds 200; the seen set holds them all."""
    movie_ids = [f"m{number}" for number in range(2300)]
    await put_movies(store, {movie_id: ["Drama"] for movie_id in movie_ids})
    rows = np.arange(2000)
    for request in import_requests(
        ["eve"], np.array([0, 2000]), movie_ids, rows, np.full(2000, 4.0), 1000 + rows.astype(np.int64)
    ):
        await store.ImportHistories(request)

    alone = await model.TopK(pb.TopKRequest(user=pb.UserSelector(user_id="eve"), k=500))
    users = [pb.UserSelector(user_id=user_id) for user_id in ("eve", "ann", "nobody")]
    together = await model.BatchTopK(pb.BatchTopKRequest(users=users, k=500))

    unseen = {*movie_ids[2000:], *MOVIES}
    for movies in (alone.movies, together.results[0].movies):
        assert {movie.movie_id for movie in movies} == unseen
    assert together.results[0].movies == alone.movies
    assert len(together.results[1].movies) == 500


async def test_a_store_that_was_emptied_and_filled_again_is_followed(start, train, store, feature_address, redis_url):
    """Its catalogue has another id: numbers are learned anew, versions of before are foreign."""
    import redis.asyncio

    train("v1")
    async with start(feature_service=feature_address, catalogue_poll_s=0.05) as model:
        version = await write(store, "carl", [entry("heat", 1000, 5.0)])
        async with redis.asyncio.Redis.from_url(redis_url) as client:
            await client.flushdb()
        await put_movies(store, {"up": ["Comedy", "Drama"], "heat": ["Drama"]})
        await write(store, "carl", [entry("up", 1000, 5.0)])

        reply = await model.TopK(pb.TopKRequest(user=pb.UserSelector(user_id="carl"), k=10), timeout=20)
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await top(model, pb.UserSelector(user_id="carl", min_user_version=version))

    assert [movie.movie_id for movie in reply.movies] == ["heat"]
    assert read_error(raised.value).reason == "FOREIGN_USER_VERSION"
