"""An operator sees what the store does: how Redis answers, what became of events, how far behind an export is."""

import asyncio
from collections.abc import Callable

import pytest
from marquee.client.channel import open_channel
from marquee.v1 import feature_service_pb2 as pb2
from marquee.v1 import feature_service_pb2_grpc

from feature_service.__main__ import serving
from feature_service.event_log import EventLog, position_token
from feature_service.histories import Histories, WatchEvent
from feature_service.lifetimes import Lifetimes
from feature_service.redis_meter import RedisMeter
from feature_service.settings import FeatureSettings
from service_runtime.metrics import Metrics
from tests.feature_server import until_ready
from tests.feature_service import messages as make
from tests.scraping import Scrape, scrape

DAY_MS = 86_400_000


@pytest.fixture
async def observed(redis_settings, unused_tcp_port):
    """A stub to a feature_service, and where its metrics are."""
    address = f"127.0.0.1:{unused_tcp_port}"
    settings = FeatureSettings(**redis_settings, listen="127.0.0.1:0", metrics_listen=address, drain_timeout_s=1.0)
    async with serving(settings) as server, open_channel(server.address) as channel:
        await until_ready(channel)
        yield feature_service_pb2_grpc.FeatureServiceStub(channel), address


async def scraped(address: str, holds: Callable[[Scrape], bool] = lambda _: True) -> Scrape:
    """Returns the first scrape of which something holds."""
    async with asyncio.timeout(30):
        while True:
            found = await asyncio.to_thread(scrape, address)
            if holds(found):
                return found
            await asyncio.sleep(0.05)


async def test_events_are_counted_by_what_came_of_them(observed):
    """One of each kind: taken, told twice, older than what is known, refused."""
    stub, address = observed
    await stub.BatchUpsertMovies(make.movies(3))

    await stub.WriteEvents(make.write(make.event("a", time_ms=2000), make.event("b", movie_id="unheard-of")))
    await stub.WriteEvents(make.write(make.event("a", time_ms=2000), make.event("c", time_ms=1000)))

    found = await scraped(address)
    outcomes = {sample.labels["outcome"]: sample.value for sample in found.samples("marquee_feature_events_total")}
    assert outcomes == {"applied": 1, "duplicate": 1, "stale": 1, "refused": 1}


async def test_redis_is_timed_by_command(observed):
    """Reads and writes are told apart, and nothing has failed."""
    stub, address = observed
    await stub.BatchUpsertMovies(make.movies(1))
    await stub.WriteEvents(make.write(make.event()))

    found = await scraped(address)

    assert found.total("marquee_feature_redis_duration_seconds_count", command="write") >= 1
    assert found.total("marquee_feature_redis_duration_seconds_count", command="PING") >= 1
    assert found.total("marquee_feature_redis_failures_total") == 0


async def test_the_data_set_and_its_feed_are_told(observed):
    """Epoch and catalogue are those that the RPCs name; the feed has no subscriber yet."""
    stub, address = observed
    info = await stub.GetStoreInfo(pb2.GetStoreInfoRequest())

    found = await scraped(
        address,
        lambda found: (
            bool(list(found.samples("marquee_feature_store_info")))
            and found.total("marquee_feature_change_feed_live") == 1
        ),
    )

    labels = {"epoch": info.store_epoch, "catalogue_id": info.catalogue_id}
    assert found.total("marquee_feature_store_info", **labels) == 1
    assert found.total("marquee_feature_change_feed_subscribers") == 0
    assert found.total("marquee_process_ready") == 1
    assert found.total("marquee_process_dependency_ready", dependency="redis") == 1


class Store:
    """The parts that write the log, on a clock that stands until it is moved."""

    def __init__(self, link, marks) -> None:
        self.now_ms = 100 * DAY_MS
        self.log = EventLog(link, marks, lambda: self.now_ms, max_age_ms=DAY_MS)
        self._histories = Histories(link, marks, lambda: self.now_ms, window=5, log_entries=1000, lifetimes=Lifetimes())

    async def watch(self, *times_ms: int) -> None:
        await self._histories.write([WatchEvent(f"e{time}", f"u{time}", 0, None, time) for time in times_ms])

    async def end(self) -> str:
        page = await self.log.read("", 64 * 10)
        return position_token(page.epoch, page.positions)


@pytest.fixture
async def store(link, marks) -> Store:
    await marks.ensure()
    return Store(link, marks)


async def test_an_empty_log_measures_nothing(store):
    """No entry, no age, nobody behind."""
    measure = await store.log.measure()

    assert (measure.num_entries, measure.num_written, measure.oldest_ms, measure.num_exports) == (0, 0, None, 0)


async def test_the_log_is_measured_with_what_was_trimmed(store):
    """Entries that are there, entries ever written, and the age of the oldest that is there."""
    await store.watch(1, 2, 3)
    store.now_ms += DAY_MS + 1
    written_ms = store.now_ms
    await store.watch(4, 5)
    await store.log.trim()

    measure = await store.log.measure()

    assert (measure.num_entries, measure.num_written, measure.oldest_ms) == (2, 5, written_ms)


async def test_an_export_is_behind_by_what_it_has_not_taken(store):
    """In entries, and in the age of the oldest of them; who has all waits for nothing."""
    await store.watch(1, 2)
    await store.log.hold("trainer", await store.end())
    store.now_ms += 5000
    written_ms = store.now_ms
    await store.watch(3, 4, 5)
    await store.log.hold("archive", await store.end())

    archive, trainer = (await store.log.measure()).exports

    assert (archive.name, archive.num_behind, archive.waits_since_ms) == ("archive", 0, None)
    assert (trainer.name, trainer.num_behind, trainer.waits_since_ms) == ("trainer", 3, written_ms)


def test_failures_have_a_series_before_they_happen():
    """An alert on their rise sees the first of them."""
    metrics = Metrics("feature")

    meter = RedisMeter(metrics)
    meter.failed("REDIS_TIMEOUT")

    found = Scrape(metrics.text())
    assert found.total("marquee_feature_redis_failures_total", reason="REDIS_UNAVAILABLE") == 0
    assert found.total("marquee_feature_redis_failures_total", reason="REDIS_TIMEOUT") == 1
