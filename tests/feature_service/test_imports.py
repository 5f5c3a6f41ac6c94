"""Histories are loaded in bulk by the same rules as events."""

import grpc.aio
import numpy as np
import pytest
from marquee.client.columns import import_requests
from marquee.client.errors import read_error
from marquee.v1 import feature_service_pb2 as pb2

from tests.feature_service import messages as make

NAN = float("nan")


@pytest.fixture
async def stub(feature_stub):
    """A store with 500 movies."""
    await feature_stub.BatchUpsertMovies(make.movies(500))
    return feature_stub


async def read(stub, user_id: str = "u"):
    return (await stub.BatchGetUsers(make.users(user_id))).users[0]


async def test_an_import_is_a_history(stub):
    """Entries arrive newest first, whatever their order; one without rating stays without."""
    request = make.import_histories({"u": [("m1", 3, 10), ("m2", NAN, 30), ("m3", 5, 20)], "v": [("m1", 1, 0)]})

    reply = await stub.ImportHistories(request)

    user = await read(stub)
    assert (reply.num_applied, reply.num_unchanged) == (4, 0)
    assert reply.user_versions[0] == user.user_version
    assert [(entry.movie_id, entry.HasField("rating")) for entry in user.history] == [
        ("m2", False),
        ("m3", True),
        ("m1", True),
    ]


async def test_an_import_again_changes_nothing(stub):
    """The second time all entries are unchanged, and so is the version."""
    request = make.import_histories({"u": [(f"m{i}", 3, i) for i in range(300)]})
    first = await stub.ImportHistories(request)

    second = await stub.ImportHistories(request)

    assert (first.num_applied, first.num_unchanged) == (200, 100)
    assert (second.num_applied, second.num_unchanged) == (0, 300)
    assert second.user_versions == first.user_versions
    assert (await read(stub)).num_watched == 300


async def test_an_import_merges_with_events(stub):
    """Newer events win over imported entries, older ones lose, as if all had been written one by one."""
    await stub.WriteEvents(make.write(make.event("a", movie_id="m1", rating=5, time_ms=100)))

    reply = await stub.ImportHistories(make.import_histories({"u": [("m1", 1, 50), ("m2", 2, 60)]}))

    user = await read(stub)
    assert (reply.num_applied, reply.num_unchanged) == (1, 1)
    assert [(entry.movie_id, entry.rating) for entry in user.history] == [("m1", 5), ("m2", 2)]


async def test_a_history_may_come_after_the_profile(stub):
    """The order of a bulk load: the profile stays, and the history is what it would be without one."""
    await stub.BatchUpsertUsers(make.upsert_user("u", gender="F"))
    load = make.import_histories({"u": [("m1", 3, 10), ("m2", NAN, 30)], "v": [("m1", 3, 10), ("m2", NAN, 30)]})

    first, again = await stub.ImportHistories(load), await stub.ImportHistories(load)

    user, without = await read(stub), await read(stub, "v")
    assert (first.num_applied, again.num_applied, again.num_unchanged) == (4, 0, 4)
    assert user.profile.gender == "F"
    assert (user.num_watched, len(user.history), user.history) == (2, 2, without.history)


async def test_untimed_entries_are_older_than_timed_ones(stub):
    """Time 0 orders by catalogue number and yields to any event."""
    await stub.ImportHistories(make.import_histories({"u": [("m1", 1, 0), ("m7", 2, 0), ("m3", 3, 0)]}))

    await stub.WriteEvents(make.write(make.event("a", movie_id="m1", rating=5, time_ms=1)))

    assert [entry.movie_id for entry in (await read(stub)).history] == ["m1", "m7", "m3"]


async def test_an_unknown_movie_refuses_the_whole_call(stub):
    """All ids that are missing are named, and nothing was written."""
    request = make.import_histories({"u": [("m1", 1, 5), ("x", 1, 6)], "v": [("y", 1, 7)]}, not_for_evaluation=True)

    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await stub.ImportHistories(request)

    error = read_error(raised.value)
    assert (error.code, error.reason) == (grpc.StatusCode.NOT_FOUND, "MOVIE_NOT_FOUND")
    assert error.missing_ids == ["x", "y"]
    assert (await read(stub)).user_version.endswith(".0")
    assert not (await stub.GetStoreInfo(pb2.GetStoreInfoRequest())).not_for_evaluation


async def test_rows_that_evaluations_hold_out_mark_the_store(stub):
    """The mark stays, also when later imports do not set it."""
    before = await stub.GetStoreInfo(pb2.GetStoreInfoRequest())

    await stub.ImportHistories(make.import_histories({"u": [("m1", 1, 5)]}, not_for_evaluation=True))
    await stub.ImportHistories(make.import_histories({"v": [("m1", 1, 5)]}))

    assert not before.not_for_evaluation
    assert (await stub.GetStoreInfo(pb2.GetStoreInfoRequest())).not_for_evaluation


async def test_a_user_without_entries_is_not_made(stub):
    """An empty history is no news of a user."""
    reply = await stub.ImportHistories(make.import_histories({"u": [], "v": [("m1", 1, 5)]}))

    assert reply.num_applied == 1
    assert (await read(stub)).user_version == reply.user_versions[0]
    assert reply.user_versions[0].endswith(".0")


async def test_a_hundred_thousand_ratings_load_in_seconds(stub):
    """The size of ML-100K arrives whole; 10 s is far above what it takes, some 0.4 s."""
    rng = np.random.default_rng(0)
    lengths = rng.integers(20, 193, 943)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    rows = np.concatenate([rng.permutation(500)[:length] for length in lengths])
    times = rng.integers(0, 2**40, len(rows))
    user_ids, movie_ids = [f"u{i}" for i in range(943)], [f"m{i}" for i in range(500)]

    num_applied = 0
    for request in import_requests(user_ids, offsets, movie_ids, rows, rng.integers(1, 6, len(rows)), times):
        num_applied += (await stub.ImportHistories(request, timeout=10)).num_applied

    assert num_applied == len(rows) > 95_000
    user = await read(stub, "u942")
    order = sorted(zip(times[offsets[942] :], rows[offsets[942] :], strict=True), reverse=True)
    assert [entry.movie_id for entry in user.history] == [f"m{row}" for _, row in order]
