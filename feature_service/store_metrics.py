"""Tells Prometheus what the store holds and how far behind its readers are. Knows names of metrics; knows no Redis.

What stands in Redis is measured now and then, by each replica: 130 small commands in one round trip, and as many for
each registered export. What a scrape reads is the last measurement.
"""

import asyncio
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import structlog

from feature_service.change_ring import MAX_SUBSCRIBERS, ChangeRing
from feature_service.event_log import EventLog, LogMeasure
from feature_service.store import StoreMarks
from feature_service.value_format import CataloguePointer
from service_runtime.errors import ServiceError
from service_runtime.metrics import Metrics, Numbers

_log = structlog.get_logger(__name__)
_EVERY_S = 15.0


@dataclass(slots=True)
class StoreMeasure:
    """The last measurement.

    Attributes:
        epoch: Of the store; empty before the first.
        pointer: Its catalogue.
        log: Its event log.
        measured_at: By `time.monotonic`.
    """

    epoch: str = ""
    pointer: CataloguePointer | None = None
    log: LogMeasure = field(default_factory=LogMeasure)
    measured_at: float = 0.0


async def keep_measured(
    measure: StoreMeasure, marks: StoreMarks, event_log: EventLog, rng: random.Random, every_s: float = _EVERY_S
) -> None:
    """Measures until it is cancelled; what cannot be measured keeps its last value."""
    while True:
        try:
            measure.epoch, measure.pointer = await marks.ensure()
            measure.log = await event_log.measure()
            measure.measured_at = time.monotonic()
            wait_s = every_s
        except ServiceError:
            wait_s = 1.0  # the readiness of the service tells of it
        except Exception as error:  # noqa: BLE001  nobody else would notice that nothing is measured any more
            _log.error("measurement_failed", exc_info=error)
            wait_s = every_s
        await asyncio.sleep(wait_s * rng.uniform(0.8, 1.2))


def tell_store(
    metrics: Metrics, measure: StoreMeasure, now_ms: Callable[[], int], clock: Callable[[], float] = time.monotonic
) -> None:
    """Defines the metrics of what stands in Redis."""

    def known(read: Callable[[], float]) -> Callable[[], Numbers]:
        return lambda: {(): read()} if measure.epoch else {}

    def age_s(since_ms: int | None) -> float:
        return 0.0 if since_ms is None else max(0, now_ms() - since_ms) / 1000

    metrics.gauge_of(
        "store_info",
        "1; which data set the store holds.",
        lambda: {(measure.epoch, measure.pointer.catalogue_id): 1} if measure.pointer else {},
        ["epoch", "catalogue_id"],
    )
    metrics.gauge_of(
        "store_measured_age_seconds",
        "How long ago the store was measured; the metrics of catalogue and event log are of then.",
        known(lambda: clock() - measure.measured_at),
    )
    metrics.gauge_of(
        "catalogue_version",
        "Version of the catalogue.",
        lambda: {(): measure.pointer.version} if measure.pointer else {},
    )
    metrics.gauge_of(
        "catalogue_movies",
        "Movies in the catalogue, removed ones included.",
        lambda: {(): measure.pointer.num_movies} if measure.pointer else {},
    )
    metrics.gauge_of("event_log_entries", "Entries of the event log.", known(lambda: measure.log.num_entries))
    metrics.counter_of("event_log_written", "Entries ever written to it.", known(lambda: measure.log.num_written))
    metrics.gauge_of(
        "event_log_oldest_age_seconds",
        "Age of its oldest entry, 0 if there is none.",
        known(lambda: age_s(measure.log.oldest_ms)),
    )
    metrics.gauge_of("exports", "Registered exports.", known(lambda: measure.log.num_exports))
    metrics.gauge_of(
        "export_lag_entries",
        "Entries that a registered export has not taken yet, for the first 20 exports by name.",
        lambda: {(export.name,): export.num_behind for export in measure.log.exports},
        ["export"],
    )
    metrics.gauge_of(
        "export_lag_seconds",
        "Age of the oldest entry that it has not taken yet, 0 if there is none.",
        lambda: {(export.name,): age_s(export.waits_since_ms) for export in measure.log.exports},
        ["export"],
    )


def tell_changes(metrics: Metrics, changes: ChangeRing) -> None:
    """Defines the metrics of StreamChanges."""
    metrics.counter_of("changes", "Changes that were told to the feed.", lambda: {(): changes.num_told})
    metrics.gauge_of(
        "change_feed_live", "1 while changes are told; else subscribers keep nothing.", lambda: {(): changes.is_live}
    )
    metrics.gauge_of("change_feed_position", "Newest position since the feed last began.", lambda: {(): changes.newest})
    metrics.gauge_of("change_feed_subscribers", "Subscribers now.", lambda: {(): changes.num_subscribers})
    metrics.gauge_of("change_feed_max_subscribers", "Subscribers at most.", lambda: {(): MAX_SUBSCRIBERS})


def tell_events(metrics: Metrics, outcomes: Mapping[str, int]) -> None:
    """Defines the metrics of WriteEvents; `outcomes` are counted by who answers it."""
    metrics.counter_of(
        "events",
        "Events that WriteEvents took in, by what came of them.",
        lambda: {(outcome,): number for outcome, number in outcomes.items()},
        ["outcome"],
    )
