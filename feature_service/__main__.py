"""Runs feature_service: python -m feature_service. Settings are FEATURE_* variables; --help lists them.

With a command (backup, restore, new-epoch, rewrite) it does that to the store and ends.
"""

import argparse
import asyncio
import random
import sys
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from marquee.v1 import feature_service_pb2

from feature_service import operator_commands
from feature_service.catalogue import Catalogue
from feature_service.change_ring import ChangeRing
from feature_service.change_watch import ChangeWatch
from feature_service.cluster_link import ClusterLink
from feature_service.embedded_redis import EmbeddedRedis
from feature_service.event_log import EventLog
from feature_service.handlers import FeatureHandlers
from feature_service.histories import Histories
from feature_service.keys import NUM_PARTITIONS
from feature_service.log_keeper import keep_trimmed
from feature_service.readiness import REDIS, Readiness
from feature_service.redis_link import RedisLink
from feature_service.redis_meter import RedisMeter
from feature_service.settings import EMBEDDED, FeatureSettings
from feature_service.store import StoreMarks
from feature_service.store_metrics import StoreMeasure, keep_measured, tell_changes, tell_events, tell_store
from feature_service.users import Users
from service_runtime import logs
from service_runtime.background import end
from service_runtime.health import Health
from service_runtime.observability import observing
from service_runtime.pending_calls import derived_options
from service_runtime.server import Server, Service, StartError, run


@asynccontextmanager
async def serving(settings: FeatureSettings) -> AsyncIterator[Server]:
    """Runs the service until the block ends; it listens when the block begins and may not be ready yet."""
    rng = random.Random()
    async with AsyncExitStack() as stack:
        observed = stack.enter_context(observing("feature", settings, settings.metrics_listen))
        link, embedded = await _open_link(settings, stack, RedisMeter(observed.metrics))

        marks = StoreMarks(link)
        catalogue = Catalogue(link, marks, rng)
        log_entries = settings.log_max_entries // NUM_PARTITIONS
        lifetimes = settings.lifetimes()
        max_ahead_ms = int(settings.event_max_ahead_s * 1000)
        users = Users(link, marks, now_ms, log_entries=log_entries, lifetimes=lifetimes, max_ahead_ms=max_ahead_ms)
        histories = Histories(
            link, marks, now_ms, window=settings.history_window, log_entries=log_entries, lifetimes=lifetimes
        )
        event_log = EventLog(link, marks, now_ms, max_age_ms=int(settings.log_max_age_s * 1000))
        changes = ChangeRing(settings.change_ring_size)
        measure = StoreMeasure()
        handlers = FeatureHandlers(users, histories, catalogue, event_log, changes, marks, now_ms, max_ahead_ms)

        service = Service(feature_service_pb2.DESCRIPTOR.services_by_name["FeatureService"], handlers)
        health = Health([service.descriptor.full_name], [REDIS])
        for background in (
            Readiness(link, marks, catalogue, health, rng, embedded).keep(),
            keep_trimmed(event_log, rng),
            ChangeWatch(link, changes, rng, time.monotonic).keep(),
            keep_measured(measure, marks, event_log, rng),
        ):
            stack.push_async_callback(end, asyncio.create_task(background))
        health.tell(observed.metrics)
        tell_store(observed.metrics, measure, now_ms)
        tell_changes(observed.metrics, changes)
        tell_events(observed.metrics, handlers.event_outcomes)
        pending = await derived_options(settings.max_pending_calls, settings.pending_wait_ms / 1000)
        server = Server(
            [service],
            health,
            listen=settings.listen,
            drain_timeout_s=settings.drain_timeout_s,
            leave_notice_s=settings.leave_notice_s,
            observation=observed.calls,
            security=settings.security(),
            options=[*settings.connections(), *pending],
        )
        server.tell(observed.metrics)
        yield await stack.enter_async_context(server)


async def operate(command: argparse.Namespace, settings: FeatureSettings) -> int:
    """Does what an operator asks for; returns the exit status."""
    async with AsyncExitStack() as stack:
        try:
            link, _ = await _open_link(settings, stack, None)
        except StartError as error:
            print(f"error: {error}", file=sys.stderr)
            return 1
        return await operator_commands.execute(command, link)


async def _open_link(
    settings: FeatureSettings, stack: AsyncExitStack, meter: RedisMeter | None
) -> tuple[RedisLink, EmbeddedRedis | None]:
    url, embedded = settings.redis_url.get_secret_value(), None
    if url == EMBEDDED:
        embedded = await stack.enter_async_context(EmbeddedRedis(settings.data_dir))
        url = embedded.url
    link = (ClusterLink if settings.redis_cluster else RedisLink)(
        url,
        timeout_s=settings.redis_timeout_s,
        max_connections=settings.redis_connections,
        num_replicas_to_wait_for=1 if settings.write_ack == "replica" else 0,
        security=settings.redis_security(),
        meter=meter,
    )
    stack.push_async_callback(link.close)
    return link, embedded


def now_ms() -> int:
    """Returns the time as events name it."""
    return time.time_ns() // 1_000_000


def main() -> None:
    """Runs the service until SIGTERM or Ctrl-C, or a command until it is done."""
    if sys.argv[1:2] and sys.argv[1] in operator_commands.COMMANDS:
        command = operator_commands.parse(sys.argv[1:])
        settings = FeatureSettings.load_or_exit([])
        logs.configure(settings.log_level)
        raise SystemExit(asyncio.run(operate(command, settings)))
    settings = FeatureSettings.load_or_exit(sys.argv[1:])
    logs.configure(settings.log_level)

    async def until_stopped(stop: asyncio.Event) -> None:
        async with serving(settings):
            await stop.wait()

    run(until_stopped)


if __name__ == "__main__":
    main()
