"""The cache is live exactly while somebody tells of changes; what happens to the feed is said in log and metrics."""

import asyncio
import random
import time

import pytest
from marquee.client.channel import open_channel
from structlog.testing import capture_logs

from model_service.change_feed import ChangeFeed
from model_service.features import FeatureReader
from model_service.near_cache import Cached, NearCache
from model_service.near_features import NearFeatures
from model_service.near_metrics import tell_near_cache
from service_runtime.metrics import Metrics


class AtOnce(random.Random):
    """Chance that never lets anybody wait."""

    def uniform(self, low, high):
        return 0.01


@pytest.fixture
async def cache(features):
    """A cache that follows a feature service; `logs` is what was logged."""
    features.follow()
    cache = NearCache(1000)
    cache.catalogue_changes = 0

    def changed():
        cache.catalogue_changes += 1

    async with open_channel(features.address) as channel:
        feed = ChangeFeed(FeatureReader(channel, 5.0), cache, changed, AtOnce(), silent_for_s=1.5)
        with capture_logs() as cache.logs:
            task = asyncio.create_task(feed.follow())
            await until(lambda: cache.is_live)
            yield cache
            task.cancel()


async def until(is_so):
    async with asyncio.timeout(20):
        while not is_so():  # noqa: ASYNC110 what is waited for happens in another task, which tells nobody
            await asyncio.sleep(0.005)


def fill(cache, *users):
    cache.end(cache.begin(), [(user, Cached(user, 1, 10, 0)) for user in users])


async def test_who_changes_is_forgotten(cache, features):
    """Nobody else; a changed catalogue is passed on."""
    fill(cache, "ann", "bob")
    features.say(user_ids=["ann"], catalogue_changed=True, live=True)

    await until(lambda: cache.catalogue_changes)

    assert (cache.peek("ann"), cache.peek("bob")) == (None, "bob")


async def test_a_service_that_is_told_nothing_itself_makes_nothing_kept(cache, features):
    """With or without a reset, as the contract says; later it is live again."""
    fill(cache, "ann")
    features.say(live=False)
    await until(lambda: not cache.is_live)
    fill(cache, "bob")
    features.say(live=True)
    await until(lambda: cache.is_live)

    assert (cache.peek("ann"), cache.peek("bob")) == (None, None)
    assert [(log["event"], log.get("reason")) for log in cache.logs] == [
        ("change_feed_live", None),
        ("change_feed_lost", "FEATURE_SERVICE_IS_NOT_TOLD"),
        ("change_feed_live", None),
    ]


async def test_a_feed_that_ends_is_lost_and_followed_again(cache, features):
    """All that was near is forgotten, and both are said."""
    fill(cache, "ann")
    features.lose_the_feed()
    await until(lambda: cache.num_resets == 3 and cache.is_live)

    assert cache.peek("ann") is None
    assert [log["event"] for log in cache.logs] == ["change_feed_live", "change_feed_lost", "change_feed_live"]


async def test_a_feed_that_falls_silent_is_lost(cache, features):
    """It speaks every second as long as somebody is there."""
    fill(cache, "ann")
    features.is_silent = True
    await until(lambda: not cache.is_live)

    assert len(cache) == 0
    assert cache.logs[-1]["reason"] == "SILENT"


async def test_who_was_never_live_says_so_once(features):
    """A service without a feed is asked again and again, and logged once."""
    cache = NearCache(1000)
    async with open_channel(features.address) as channel:
        feed = ChangeFeed(FeatureReader(channel, 5.0), cache, lambda: None, AtOnce())
        with capture_logs() as logs:
            task = asyncio.create_task(feed.follow())
            await until(lambda: logs)
            await asyncio.sleep(0.1)
            task.cancel()

    assert [(log["event"], log["reason"]) for log in logs] == [("change_feed_lost", "UNAVAILABLE")]
    assert cache.num_resets == 0


async def test_metrics_tell_what_the_cache_does(cache):
    """Lookups by outcome, resets, users, bytes, and whether it is live."""
    fill(cache, "ann")
    metrics = Metrics("model")
    tell_near_cache(metrics, cache, NearFeatures(None, cache, time.time))
    for user, at_least in (("ann", 1), ("ann", 2), ("bob", 0), ("ann", 0)):
        cache.get(user, at_least, 0)

    told = {line for line in metrics.text().splitlines() if line.startswith("marquee_model_near_cache")}

    assert told == {
        'marquee_model_near_cache_lookups_total{outcome="hit"} 2.0',
        'marquee_model_near_cache_lookups_total{outcome="miss"} 1.0',
        'marquee_model_near_cache_lookups_total{outcome="bypass"} 1.0',
        "marquee_model_near_cache_resets_total 1.0",
        'marquee_model_near_cache_embeddings_total{how="taken"} 0.0',
        'marquee_model_near_cache_embeddings_total{how="made"} 0.0',
        "marquee_model_near_cache_users 1.0",
        "marquee_model_near_cache_size_bytes 10.0",
        "marquee_model_near_cache_limit_bytes 1000.0",
        "marquee_model_near_cache_live 1.0",
    }
