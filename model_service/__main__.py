"""Runs model_service: `python -m model_service`. Settings are environment variables; `--help` lists them."""

import asyncio
import random
import sys
import time
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager

from marquee.client.channel import open_channel
from marquee.v1 import model_service_pb2

from model_service.batcher import Batcher
from model_service.catalogue_mirror import CatalogueMirror, in_background
from model_service.change_feed import ChangeFeed
from model_service.checkpoint_loader import CheckpointLoader
from model_service.device_work import DeviceWork
from model_service.features import FeatureReader
from model_service.generations import Generations
from model_service.handlers import ModelHandlers
from model_service.near_cache import NearCache
from model_service.near_features import NearFeatures, NearUser
from model_service.near_metrics import tell_near_cache
from model_service.observed_batches import ObservedBatches, tell_waiting_room
from model_service.pipeline import Pipeline
from model_service.readiness import DEPENDENCIES, Readiness
from model_service.settings import ModelSettings
from model_service.versions import Versions
from service_runtime import logs
from service_runtime.health import Health
from service_runtime.observability import observing
from service_runtime.server import Server, Service, run
from two_tower.registry import Registry

SERVICE = model_service_pb2.DESCRIPTOR.services_by_name["ModelService"]


@asynccontextmanager
async def serve(settings: ModelSettings) -> AsyncIterator[Server]:
    """Serves until the context is left; it is entered as soon as the port is open, ready or not."""
    rng = random.Random()
    health = Health([SERVICE.full_name], DEPENDENCIES)
    registry = Registry(settings.registry)
    with (
        observing("model", settings, settings.metrics_listen) as observed,
        # One thread owns the device; the other reads checkpoints and embeds catalogues while it answers.
        ThreadPoolExecutor(1, "device") as device_thread,
        ThreadPoolExecutor(1, "background") as background_thread,
    ):
        metrics, tracing = observed.metrics, observed.tracing
        health.tell(metrics)
        on_device, aside = in_background(device_thread), in_background(background_thread)
        interceptors = tracing.interceptors() if tracing else []
        async with open_channel(settings.feature_service, interceptors=interceptors) as channel:
            features = FeatureReader(channel, settings.feature_timeout_s)
            generations = Generations(
                CatalogueMirror(features, aside),
                aside,
                settings.catalogue_min_interval_s,
                settings.catalogue_patience_s,
            )
            work = DeviceWork(settings.numpy_rows())
            cache: NearCache[NearUser] = NearCache(settings.near_cache_bytes)
            near = NearFeatures(features, cache, time.time)
            tell_near_cache(metrics, cache, near)
            pipeline = Pipeline(
                near,
                generations,
                work,
                on_device,
                answer_without_features=settings.answer_without_features,
                clock=time.monotonic,
                wall_clock=time.time,
            )
            readiness = Readiness(
                health,
                CheckpointLoader(registry, settings.label, settings.torch_device()),
                generations,
                work,
                in_background=aside,
                warm_up_rows=(1, settings.numpy_rows() + 1, settings.max_batch_rows),
                retry_s=settings.retry_s,
                rng=rng,
            )
            batches = ObservedBatches(pipeline, metrics, tracing, time.monotonic)
            async with Batcher(settings.knobs(), batches) as batcher:
                tell_waiting_room(metrics, batcher.room)
                handlers = ModelHandlers(
                    generations,
                    Versions(registry, generations),
                    batcher,
                    max_batch_rows=settings.max_batch_rows,
                    interactive_max_rows=settings.interactive_max_rows,
                    default_timeout_s=settings.default_timeout_s,
                )
                async with Server(
                    [Service(SERVICE, handlers)],
                    health,
                    listen=settings.listen,
                    drain_timeout_s=settings.drain_timeout_s,
                    observation=observed.calls,
                ) as server:
                    following = [asyncio.create_task(_follow(readiness, generations, settings, rng))]
                    if settings.near_cache_bytes:
                        feed = ChangeFeed(features, cache, generations.refresh_soon, rng)
                        following.append(asyncio.create_task(feed.follow()))
                    try:
                        yield server
                    finally:
                        for task in following:
                            task.cancel()


async def _follow(readiness: Readiness, generations: Generations, settings: ModelSettings, rng: random.Random) -> None:
    await readiness.reach()
    await generations.follow(settings.catalogue_poll_s, rng)


def main() -> None:
    """Runs the process to its end."""
    settings = ModelSettings.load_or_exit(sys.argv[1:])
    logs.configure(settings.log_level)

    async def serve_until(stop: asyncio.Event) -> None:
        async with serve(settings):
            await stop.wait()

    run(serve_until)


if __name__ == "__main__":
    main()
