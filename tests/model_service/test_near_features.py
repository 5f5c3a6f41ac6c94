"""A user who was read before is answered from near, and never from a state older than anybody who asks knows of."""

import asyncio
import time

import grpc
import pytest
from marquee.client.errors import read_error
from marquee.v1 import model_service_pb2 as pb
from structlog.testing import capture_logs

from model_service.near_features import newer_version
from tests.model_service.feature_fake import EPOCH

HOUR_MS = 3_600_000


@pytest.fixture
async def model(start, train, features):
    """A service whose feature service tells of changes."""
    features.follow()
    features.watch("carl", "heat", 1000, 5.0)
    train("v1")
    async with start(feature_service=features.address, near_cache_bytes=1 << 20) as stub:
        await _until_near(stub, features, "probe")
        features.reads.clear()
        yield stub


async def _until_near(stub, features, user_id):
    """Asks until nothing is read any more: then the feed is live."""
    async with asyncio.timeout(10):
        before = -1
        while len(features.reads) != before:
            before = len(features.reads)
            await top(stub, user_id)
            await asyncio.sleep(0.05)


async def top(stub, user_id, version="", **fields):
    user = pb.UserSelector(user_id=user_id, min_user_version=version)
    return await stub.TopK(pb.TopKRequest(user=user, k=10, **fields))


async def until_answered_from(stub, version):
    async with asyncio.timeout(5):
        while True:
            if (await top(stub, "carl")).user_version == version:
                return
            await asyncio.sleep(0.01)


async def test_the_second_time_nobody_is_asked(model, features):
    """The answers are the same, the movies ever watched included."""
    first = await top(model, "carl")
    second = await top(model, "carl")

    assert first == second
    assert "heat" not in [movie.movie_id for movie in second.movies]
    assert features.reads == [["carl"]]


async def test_only_those_who_are_not_near_are_read(model, features):
    """A batch of several is answered in its order, from near and from the store."""
    await top(model, "carl")
    features.watch("dora", "big", 1000, 5.0)
    users = [pb.UserSelector(user_id=user_id) for user_id in ("dora", "carl", "nobody")]

    both = await model.BatchTopK(pb.BatchTopKRequest(users=users, k=10))

    assert features.reads == [["carl"], ["dora", "nobody"]]
    listed = [[movie.movie_id for movie in result.movies] for result in both.results]
    assert [("big" in movies, "heat" in movies) for movies in listed] == [(False, True), (True, False), (True, True)]


async def test_a_change_that_was_told_is_seen(model, features):
    """A moment later, without anybody asking for it."""
    await top(model, "carl")
    version = features.watch("carl", "alien", 2000)

    await until_answered_from(model, version)


async def test_a_write_is_read_by_who_knows_of_it(model, features):
    """Also before the feed tells of it; others go on with what is near."""
    features.held_back = True
    before = await top(model, "carl")
    version = features.watch("carl", "alien", 2000)

    mine = await top(model, "carl", version)
    others = await top(model, "carl")

    assert mine.user_version == version
    assert "alien" not in [movie.movie_id for movie in mine.movies]
    assert others.user_version in (before.user_version, version)


async def rate(stub, user_id, version=""):
    user = pb.UserSelector(user_id=user_id, min_user_version=version)
    return await stub.PredictRating(pb.PredictRatingRequest(user=user, movie_id="big"))


async def rate_many(stub, user_id, version=""):
    request = pb.BatchPredictRatingsRequest(
        user_ids=[user_id], movie_ids=["big"], user_indices=[0], movie_indices=[0], min_user_versions=[version]
    )
    reply = await stub.BatchPredictRatings(request)
    return reply.statuses[0], reply.user_versions[0]


async def top_many(stub, user_id, version=""):
    users = [pb.UserSelector(user_id=user_id, min_user_version=version)]
    [result] = (await stub.BatchTopK(pb.BatchTopKRequest(users=users, k=10))).results
    return result.status, result.user_version


@pytest.mark.parametrize("ask", [top, rate])
async def test_a_version_that_the_store_does_not_have_is_not_answered(model, features, ask):
    """Never silently older: neither from near nor from the store; one of another store cannot be compared at all."""
    features.held_back = True
    await ask(model, "carl")
    version = features.watch("carl", "alien", 2000)

    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await ask(model, "carl", f"{EPOCH}.7.99")
    with pytest.raises(grpc.aio.AioRpcError) as foreign:
        await ask(model, "carl", "fedcba9876543210.7.1")

    assert refused.value.code() == grpc.StatusCode.UNAVAILABLE
    assert read_error(refused.value).retry_after_s
    assert foreign.value.code() == grpc.StatusCode.FAILED_PRECONDITION
    assert (await ask(model, "carl", version)).user_version == version


@pytest.mark.parametrize("ask", [top_many, rate_many])
async def test_a_row_whose_version_the_store_does_not_have_is_not_answered(model, features, ask):
    """As alone; the row's status says which of both it is."""
    features.held_back = True
    await ask(model, "carl")
    version = features.watch("carl", "alien", 2000)

    assert (await ask(model, "carl", f"{EPOCH}.7.99"))[0] == pb.ROW_STATUS_USER_NOT_CURRENT
    assert (await ask(model, "carl", "fedcba9876543210.7.1"))[0] == pb.ROW_STATUS_FOREIGN_USER_VERSION
    assert await ask(model, "carl", version) == (pb.ROW_STATUS_OK, version)


async def test_a_store_that_was_restored_is_noticed_by_its_versions(model, features):
    """Its epoch is another: whoever is near is of the store before, and is read again as soon as one row says so."""
    features.held_back = True
    await top(model, "carl")
    features.epoch = "fedcba9876543210"
    version = features.watch("carl", "alien", 2000)

    with capture_logs() as logs:
        users = [pb.UserSelector(user_id=user_id) for user_id in ("carl", "dora")]
        both = await model.BatchTopK(pb.BatchTopKRequest(users=users, k=10))

    assert [result.user_version for result in both.results] == [version, features.version_of("dora")]
    assert [log["event"] for log in logs] == ["store_replaced"]


async def test_a_lost_feed_is_no_reason_to_answer_from_before(model, features):
    """What was near is gone, and everything is read until somebody tells again."""
    await top(model, "carl")
    features.held_back = True
    version = features.watch("carl", "alien", 2000)
    features.lose_the_feed()

    await until_answered_from(model, version)


async def test_a_user_who_expires_is_read_again(model, features):
    """The row says until when it holds."""
    expires_at_ms = features.expires_at_ms["carl"] = int(time.time() * 1000) + 1000
    await top(model, "carl")
    await top(model, "carl")
    assert features.reads == [["carl"]]
    await asyncio.sleep(expires_at_ms / 1000 - time.time())

    await top(model, "carl")

    assert features.reads == [["carl"], ["carl"]]


async def test_a_replaced_catalogue_empties_what_is_near(model, features):
    """Its numbers mean other movies."""
    await top(model, "carl")
    features.replace_catalogue()
    for movie_id in ("up", "big", "alien", "heat"):
        features.put_movie(movie_id, title=movie_id)
    features.watch("dora", "up", 1000)

    async with asyncio.timeout(10):
        while True:
            try:
                users = [pb.UserSelector(user_id=user_id) for user_id in ("carl", "dora")]
                answer = await model.BatchTopK(pb.BatchTopKRequest(users=users, k=10))
                break
            except grpc.aio.AioRpcError as error:
                if error.code() is not grpc.StatusCode.UNAVAILABLE:
                    raise
                await asyncio.sleep(0.05)

    listed = [{movie.movie_id for movie in result.movies} for result in answer.results]
    assert listed == [{"up", "big", "alien", "heat"}, {"big", "alien", "heat"}]


async def test_without_room_nothing_is_near(start, train, features):
    """The setting turns it off: every answer is read for."""
    features.follow()
    train("v1")
    async with start(near_cache_bytes=0) as stub:
        for _ in range(3):
            await top(stub, "carl")

    assert features.reads == [["carl"]] * 3


def test_of_two_versions_the_newer_is_waited_for():
    """Versions of two epochs cannot both be included."""
    assert newer_version("", f"{EPOCH}.7.3") == f"{EPOCH}.7.3"
    assert newer_version(f"{EPOCH}.7.30", f"{EPOCH}.7.4") == f"{EPOCH}.7.30"
    assert newer_version(f"{EPOCH}.7.3", "0000000000000000.7.4") == "contradictory"
    assert newer_version(f"{EPOCH}.7.3", "nonsense") == "contradictory"
