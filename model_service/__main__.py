"""Runs model_service: `python -m model_service`. Settings are environment variables; `--help` lists them."""

import asyncio
import gc
import random
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection

from marquee.client.channel import open_channel, without_timeouts
from marquee.v1 import model_admin_pb2, model_service_pb2

from model_service.admin_handlers import AdminHandlers
from model_service.background_threads import background_thread
from model_service.batcher import Batcher
from model_service.catalogue_mirror import CatalogueMirror, InBackground, in_background
from model_service.change_feed import ChangeFeed
from model_service.checkpoint_loader import CheckpointLoader
from model_service.company import Company
from model_service.device_work import DeviceWork
from model_service.generations import Generations
from model_service.handlers import ModelHandlers
from model_service.indexing import Indexing
from model_service.measured_work import MeasuredReader, MeasuredThreads
from model_service.model_metrics import tell_models
from model_service.model_table import ModelTable
from model_service.near_answers import NearAnswers
from model_service.near_cache import NearCache
from model_service.near_features import NearFeatures, NearUser
from model_service.near_lists import NearLists
from model_service.near_metrics import tell_answers_at_once, tell_near_cache
from model_service.near_pairs import NearPairs
from model_service.observed_batches import ObservedBatches, tell_spared, tell_waiting_room
from model_service.pipeline import Pipeline
from model_service.rollout import DEPENDENCIES, Rollout
from model_service.settings import ModelSettings
from model_service.thread_load import not_idle_s
from model_service.users_ahead import UsersAhead
from model_service.versions import Versions
from model_service.workers import Workers
from service_runtime import logs
from service_runtime.health import Health
from service_runtime.metrics import Metrics
from service_runtime.observability import observing
from service_runtime.observation import Observation
from service_runtime.pending_calls import derived_options
from service_runtime.server import Server, Service, run
from service_runtime.settings import OFF
from two_tower.registry import Registry

SERVICE = model_service_pb2.DESCRIPTOR.services_by_name["ModelService"]
ADMIN_SERVICE = model_admin_pb2.DESCRIPTOR.services_by_name["ModelAdminService"]

_SWITCH_INTERVAL_S = 0.0005
"""After so long a thread that loads a model hands the interpreter to those that answer; Python's default is 5 ms, for
each of the many times that a batch wants it back: docs/decisions/0061-loading-gives-way.md."""


@asynccontextmanager
async def serve(
    settings: ModelSettings, *, shares_port: bool = False, tell_metrics: Callable[[str], None] | None = None
) -> AsyncIterator[Server]:
    """Serves until the context is left; it is entered as soon as the port is open, ready or not.

    Args:
        settings: What was asked for.
        shares_port: Whether other processes of ours listen on the same port.
        tell_metrics: Is told where the metrics are, once they are.
    """
    rng = random.Random()
    health = Health([SERVICE.full_name], DEPENDENCIES)
    pending = await derived_options(settings.max_pending_calls, settings.pending_wait_ms / 1000)
    registry = Registry(settings.registry)
    with observing("model", settings, settings.metrics_listen) as observed, _threads(observed.metrics) as threads:
        if tell_metrics is not None:
            tell_metrics(observed.address)
        metrics, tracing = observed.metrics, observed.tracing
        health.tell(metrics)
        async with open_channel(
            settings.feature_service,
            credentials=settings.feature_credentials(),
            options=without_timeouts(),
            interceptors=tracing.interceptors() if tracing else [],
        ) as channel:
            known = _known(settings, MeasuredReader(channel, settings.feature_timeout_s, metrics), threads, metrics)
            work = DeviceWork(settings.numpy_rows())
            pipeline = Pipeline(
                known.users,
                known.generations,
                work,
                threads.device,
                answer_without_features=settings.answer_without_features,
                clock=time.monotonic,
                wall_clock=time.time,
            )
            ahead = UsersAhead(known.users, work, settings.embed_ahead_users)
            rollout = _rollout(settings, registry, known.generations, work, ahead, health, threads, rng)
            tell_models(metrics, known.generations, rollout)
            batches = ObservedBatches(pipeline, metrics, tracing, time.monotonic)
            async with Batcher(settings.knobs(), batches, known.company_of_far) as batcher:
                tell_waiting_room(metrics, batcher.room)
                tell_spared(metrics, lambda: pipeline.num_spared)
                handlers = ModelHandlers(
                    known.generations,
                    Versions(known.generations, rollout),
                    known.at_once,
                    known.pairs,
                    known.lists,
                    batcher,
                    max_batch_rows=settings.max_batch_rows,
                    max_bulk_rows=settings.max_bulk_rows,
                    interactive_max_rows=settings.interactive_max_rows,
                    default_timeout_s=settings.default_timeout_s,
                )
                admin = AdminHandlers(registry, settings.label, known.generations, rollout)
                async with (
                    _admin_server(admin, settings, observed.calls),
                    Server(
                        [Service(SERVICE, handlers)],
                        health,
                        listen=settings.listen,
                        drain_timeout_s=settings.drain_timeout_s,
                        leave_notice_s=settings.leave_notice_s,
                        observation=observed.calls,
                        security=settings.security(),
                        options=[*settings.connections(), *pending, ("grpc.so_reuseport", int(shares_port))],
                    ) as server,
                ):
                    server.tell(metrics)
                    with _following(settings, known, rollout, rng):
                        yield server


@dataclass(frozen=True, slots=True)
class _Threads:
    """Ways to run functions beside the event loop.

    Attributes:
        device: In the one thread that owns the device.
        catalogue: Where catalogues are embedded.
        loading: Where checkpoints are read.
        indexing: Where what proposes movies of large catalogues is built anew.
    """

    device: InBackground
    catalogue: InBackground
    loading: InBackground
    indexing: InBackground


@contextmanager
def _threads(metrics: Metrics) -> Iterator[_Threads]:
    """Runs the threads; all but the device's stand back for the others."""
    measured = MeasuredThreads(metrics).measured
    with (
        ThreadPoolExecutor(1, "device") as device,
        background_thread("catalogue") as catalogue,
        background_thread("loading") as loading,
        background_thread("indexing") as indexing,
    ):
        yield _Threads(
            device=measured("device", in_background(device)),
            catalogue=measured("catalogue", in_background(catalogue)),
            loading=measured("loading", in_background(loading)),
            indexing=measured("indexing", in_background(indexing)),
        )


@dataclass(frozen=True, slots=True)
class _Known:
    """What is known of feature_service's users and movies.

    Attributes:
        features: Reads both.
        generations: The movies, embedded by each model that serves.
        cache: Holds the users who are near.
        users: Reads users from there, and those who are not near from feature_service.
        at_once: Answers of users who are near without a batch.
        pairs: Rates single pairs of them.
        lists: Ranks for them while the service is busy.
        company_of_far: Tells whether users who are not near wait for others.
    """

    features: MeasuredReader
    generations: Generations
    cache: NearCache[NearUser]
    users: NearFeatures
    at_once: NearAnswers
    pairs: NearPairs
    lists: NearLists
    company_of_far: Company


def _known(settings: ModelSettings, features: MeasuredReader, threads: _Threads, metrics: Metrics) -> _Known:
    generations = Generations(
        CatalogueMirror(features, threads.catalogue),
        threads.catalogue,
        settings.catalogue_min_interval_s,
        settings.catalogue_patience_s,
        indexing=Indexing(settings.index_min_movies, settings.index_min_recall),
        indexing_aside=threads.indexing,
    )
    cache: NearCache[NearUser] = NearCache(settings.near_cache_bytes)
    users = NearFeatures(features, cache, time.time)
    tell_near_cache(metrics, cache, users)
    at_once = NearAnswers(users, generations)
    gap_s = settings.company_gap_ms / 1000
    company = Company(gap_s, not_idle_s)
    pairs = NearPairs(users, generations, company, time.monotonic)
    lists = NearLists(users, generations, company, time.monotonic)
    tell_answers_at_once(metrics, at_once, pairs, lists)
    return _Known(features, generations, cache, users, at_once, pairs, lists, Company.of_far_users(gap_s, not_idle_s))


def _rollout(
    settings: ModelSettings,
    registry: Registry,
    generations: Generations,
    work: DeviceWork,
    ahead: UsersAhead,
    health: Health,
    threads: _Threads,
    rng: random.Random,
) -> Rollout:
    device = settings.torch_device()
    batch_sizes = (1, settings.numpy_rows() + 1, settings.max_batch_rows)
    return Rollout(
        registry,
        settings.label,
        settings.also_labels,
        CheckpointLoader(registry, device),
        generations,
        work,
        ahead,
        health,
        ModelTable(time.monotonic, time.time),
        in_background=threads.loading,
        warm_up_rows=batch_sizes,
        # On a CPU nothing of what a large batch does once belongs to a model.
        later_warm_up_rows=batch_sizes if device.type == "cuda" else batch_sizes[:2],
        poll_s=settings.registry_poll_s,
        retry_s=settings.retry_s,
        rng=rng,
    )


@contextmanager
def _following(settings: ModelSettings, known: _Known, rollout: Rollout, rng: random.Random) -> Iterator[None]:
    """Keeps models, catalogue and the users who are near up to date."""
    following = [asyncio.create_task(_follow(rollout, known.generations, settings, rng))]
    if settings.near_cache_bytes:
        feed = ChangeFeed(known.features, known.cache, known.generations.refresh_soon, rng)
        following.append(asyncio.create_task(feed.follow()))
    try:
        yield
    finally:
        for task in following:
            task.cancel()


async def _follow(rollout: Rollout, generations: Generations, settings: ModelSettings, rng: random.Random) -> None:
    await rollout.reach()
    async with asyncio.TaskGroup() as following:
        following.create_task(rollout.follow())
        following.create_task(generations.follow(settings.catalogue_poll_s, rng))


@asynccontextmanager
async def _admin_server(
    handlers: AdminHandlers, settings: ModelSettings, observation: Observation
) -> AsyncIterator[None]:
    """Listens on a port of its own for who moves models, if there is to be one."""
    if settings.admin_listen == OFF:
        yield
        return
    async with Server(
        [Service(ADMIN_SERVICE, handlers)],
        Health([ADMIN_SERVICE.full_name], []),
        listen=settings.admin_listen,
        drain_timeout_s=settings.drain_timeout_s,
        observation=observation,
        security=settings.admin_security(),
    ):
        yield


def main() -> None:
    """Runs the process to its end."""
    settings = ModelSettings.load_or_exit(sys.argv[1:])
    if settings.workers > 1:
        logs.configure(settings.log_level)
        run(Workers(settings, "model_service.__main__:work", random.Random()).run)
    _prepare_process(settings)

    async def serve_until(stop: asyncio.Event) -> None:
        async with serve(settings):
            await stop.wait()

    run(serve_until)


def work(settings: ModelSettings, pipe: Connection) -> None:
    """Runs one of several workers, until its pipe closes."""
    _prepare_process(settings)

    async def serve_until(stop: asyncio.Event) -> None:
        loop = asyncio.get_running_loop()

        def leave() -> None:
            loop.remove_reader(pipe.fileno())
            stop.set()

        loop.add_reader(pipe.fileno(), leave)
        async with serve(settings, shares_port=True, tell_metrics=pipe.send):
            await stop.wait()

    run(serve_until)


def _prepare_process(settings: ModelSettings) -> None:
    logs.configure(settings.log_level)
    sys.setswitchinterval(_SWITCH_INTERVAL_S)
    # What the imports made stays for ever: a full collection of garbage need not look at it while callers wait.
    gc.freeze()


if __name__ == "__main__":
    main()
