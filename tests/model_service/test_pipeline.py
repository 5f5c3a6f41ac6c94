"""One read of the store and one pass of the tower per batch, and none for callers who have gone."""

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
from marquee.client.channel import open_channel

from model_service.batcher import Batcher, ExpiredError
from model_service.catalogue_mirror import CatalogueMirror, in_background
from model_service.company import Company
from model_service.device_work import DeviceWork
from model_service.features import FeatureReader
from model_service.filters import MovieFilter
from model_service.generations import Generations
from model_service.near_cache import NearCache
from model_service.near_features import NearFeatures
from model_service.pipeline import Pipeline
from model_service.queries import RatingTask, TopKTask, UserQuery
from model_service.thread_load import not_idle_s
from model_service.waiting_room import BatchingKnobs, Priority
from service_runtime.errors import Unavailable
from two_tower import checkpoint
from two_tower.recommending import Wish

KNOBS = BatchingKnobs(
    max_batch_rows=2000, max_waiting_rows=5000, gap_s=0.001, max_in_flight=2, bulk_patience_s=1.0, max_bulk_rows=2000
)


@pytest.fixture
async def bench(train, features):
    """A batcher over a real pipeline, with the model within reach."""
    loaded = checkpoint.load(train("v1"))

    class Bench:
        model = loaded.model

        def ask(self, task, timeout_s=10.0):
            deadline = time.monotonic() + timeout_s
            return asyncio.create_task(batcher.submit(task, len(task.users), Priority.INTERACTIVE, deadline))

        def num_spared(self):
            return pipeline.num_spared

    with ThreadPoolExecutor(1) as thread:
        run = in_background(thread)
        async with open_channel(features.address) as channel:
            reader = FeatureReader(channel, timeout_s=5.0)
            generations = Generations(CatalogueMirror(reader, run), run, 0.0, 1.0)
            await generations.answer_from(await generations.prepare(loaded, run))
            pipeline = Pipeline(
                NearFeatures(reader, NearCache(0), time.time),
                generations,
                DeviceWork(numpy_max_rows=64),
                run,
                answer_without_features=False,
                clock=time.monotonic,
                wall_clock=time.time,
            )
            async with Batcher(KNOBS, pipeline, Company(0.0, not_idle_s)) as batcher:
                loaded.model.batches.clear()
                yield Bench()


def rate(*user_ids):
    users = [UserQuery(user_id) for user_id in user_ids]
    places = np.arange(len(users), dtype=np.int64)
    return RatingTask("catalogue-1", users, places, np.zeros(len(users), np.int64))


def top(*user_ids, exclude_seen=True):
    return TopKTask("catalogue-1", [UserQuery(user_id) for user_id in user_ids], Wish(3), MovieFilter(), exclude_seen)


async def under_way(features, reads):
    while len(features.reads) < reads:  # noqa: ASYNC110 the read is of another loop turn, with nothing to wait for
        await asyncio.sleep(0.001)


async def test_a_batch_reads_its_users_once_and_runs_the_tower_once(bench, features):
    """Whatever its requests are; a user of several requests is read once."""
    features.gate.clear()
    first = bench.ask(rate("ann"))
    await under_way(features, 1)
    others = [bench.ask(rate("ann")), bench.ask(top("bob")), bench.ask(top("ann", "carl"))]
    await under_way(features, 2)
    features.gate.set()

    await asyncio.gather(first, *others)

    assert features.reads == [["ann"], ["ann", "bob", "carl"]]
    assert bench.model.batches == [1, 4]


async def test_callers_who_leave_during_the_read_cost_no_model_time(bench, features):
    """The read goes on for the others; the tower runs for those who are still there."""
    features.gate.clear()
    first = bench.ask(rate("dora"))
    await under_way(features, 1)
    cancelled, expired, stays = bench.ask(rate("ann")), bench.ask(rate("bob"), 0.2), bench.ask(rate("carl"))
    expires_at = time.monotonic() + 0.2
    await under_way(features, 2)
    cancelled.cancel()
    await asyncio.sleep(max(0.0, expires_at - time.monotonic()))
    features.gate.set()

    await asyncio.gather(first, stays)

    assert features.reads == [["dora"], ["ann", "bob", "carl"]]
    assert bench.model.batches == [1, 1]
    assert bench.num_spared() == 2
    assert isinstance((await asyncio.gather(expired, return_exceptions=True))[0], ExpiredError)


async def test_a_batch_of_nobody_runs_no_tower(bench, features):
    """All have gone: nothing is left to do."""
    features.gate.clear()
    cancelled = bench.ask(rate("ann"))
    await under_way(features, 1)
    cancelled.cancel()
    features.gate.set()
    await asyncio.sleep(0.05)

    assert bench.model.batches == []


async def test_numbers_of_a_catalogue_that_was_replaced_meanwhile_name_no_movie(bench):
    """A request that was admitted before is refused, and may come again; one that was admitted since is answered."""
    anonymous = TopKTask("catalogue-1", [UserQuery(None)], Wish(3), MovieFilter(), True)
    before, since = bench.ask(replace(anonymous, catalogue_id="catalogue-0")), bench.ask(anonymous)

    failure, answer = await asyncio.gather(before, since, return_exceptions=True)

    assert isinstance(failure, Unavailable)
    assert failure.reason == "CATALOGUE_REPLACED"
    assert len(bench_names(answer)[0]) == 3


async def test_many_users_with_seen_movies_are_read_in_parts(bench, features):
    """The limit of the store is kept; without seen movies one read takes a thousand."""
    users = [f"u{number}" for number in range(600)]

    await bench.ask(top(*users))
    with_seen = [len(read) for read in features.reads]
    features.reads.clear()
    await bench.ask(top(*users, exclude_seen=False))

    assert sorted(with_seen) == [100, 250, 250]
    assert [len(read) for read in features.reads] == [600]


async def test_seen_movies_that_the_store_left_out_are_asked_for_again(bench, features):
    """Until every user's are there."""
    for user_id in ("ann", "bob", "carl"):
        for movie_id in ("heat", "alien", "big"):
            features.watch(user_id, movie_id, 1000, 3.0)
    features.room_for_seen = 4

    answer = await bench.ask(top("ann", "bob", "carl"))

    assert features.reads == [["ann", "bob", "carl"], ["bob", "carl"], ["carl"]]
    movies = bench_names(answer)
    assert all(set(row) == {"up", "new"} for row in movies)


async def test_a_user_whose_vector_is_no_number_fails_alone(bench, features, monkeypatch):
    """A neighbour in the batch is answered."""
    embed_users = type(bench.model).embed_users

    def broken(self, users, movies):
        embeddings = embed_users(self, users, movies)
        for row, user_id in enumerate(users.user_ids):
            if user_id == "bob":
                embeddings.ranking_vectors[row] = float("nan")
        return embeddings

    monkeypatch.setattr(type(bench.model), "embed_users", broken)
    features.gate.clear()
    first = bench.ask(rate("carl"))
    await under_way(features, 1)
    bad, good = bench.ask(top("bob")), bench.ask(top("ann"))
    await under_way(features, 2)
    features.gate.set()

    _, failure, answer = await asyncio.gather(first, bad, good, return_exceptions=True)

    assert "not finite" in str(failure)
    assert bench_names(answer)[0][0] == "heat"


def bench_names(answer):
    movies = answer.generation.catalogue.movies
    return [[movies[number].movie_id for number in row.ranked.numbers.tolist()] for row in answer.rows]
