"""What does keeping users near save a request, and what do they take of memory?

Trains on synthetic data, publishes to a real feature_service in a process of its own, and sends requests through the
batcher and pipeline of model_service in this process, without its gRPC server: what is counted is this process' CPU
time per request, reading features included. Three ways take turns within a round, so that a busy machine slows all of
them: every user read for every batch, users kept as they were read, and users kept as they were embedded too.

Beside it, what a kept user takes of memory by our account and by the process' own, and what it costs to bring embedded
users of a batch together from tensors of their own, as is done, against rows of one table.
"""

import argparse
import asyncio
import gc
import itertools
import os
import random
import shutil
import time
import timeit
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from marquee.client.channel import open_channel, open_sync_channel
from marquee.client.columns import UserRows
from marquee.v1 import user_pb2
from numpy.typing import NDArray
from rich.console import Console

from benchmarks.record import record
from deploy.local.stack import LocalStack
from model_service.batcher import Batcher
from model_service.catalogue_mirror import CatalogueMirror, in_background
from model_service.change_feed import ChangeFeed
from model_service.company import Company
from model_service.device_work import DeviceWork
from model_service.embedded_user import EmbeddedUser, joined
from model_service.features import FeatureReader, UsersRead
from model_service.filters import MovieFilter
from model_service.generations import Generations
from model_service.near_cache import NearCache
from model_service.near_features import NearFeatures, NearUser
from model_service.pipeline import Pipeline
from model_service.queries import Answer, RatingTask, Source, Task, TopKTask, UserQuery
from model_service.stored_user import StoredUser, stored_users
from model_service.thread_load import not_idle_s
from model_service.waiting_room import BatchingKnobs, Priority
from trainer.fits import silent
from trainer.publishing import publish
from trainer.readers.read_options import ReadOptions
from trainer.snapshot import divide_again, take_snapshot
from trainer.synthesis import SynthesisPlan, write_synthetic
from trainer.training import Request, train
from two_tower.checkpoint import Checkpoint, load
from two_tower.heads import Heads
from two_tower.recommending import Wish
from two_tower.registry import Registry
from two_tower.serving import UserEmbeddings

FOLDER = Path(".run/near_cache")
MODELS = ("marquee", "two-tower-history")
NUM_MOVIES = 1682
PLAN = SynthesisPlan(num_users=943, num_movies=NUM_MOVIES, num_ratings=100_000, seed=7)
USERS = 200
REQUESTS = 250
ROUNDS = 5
CALLERS = (1, 32)
K = 10
NUMPY_ROWS = 8
KNOBS = BatchingKnobs(
    max_batch_rows=250, max_waiting_rows=2000, gap_s=0.001, max_in_flight=1, bulk_patience_s=0.2, max_bulk_rows=250
)
CACHE_BYTES = 1 << 28
READ, ROWS, EMBEDDED = "read each time", "rows near", "rows and embeddings near"
KEPT_USERS = 20_000
BATCHES = (1, 8, 32, 128)


class RowsOnly(NearFeatures):
    """Forgets how users were embedded."""

    def embedded(self, user_ids: Sequence[str], read: UsersRead, heads: Heads) -> dict[str, EmbeddedUser]:
        """Returns nobody."""
        return {}

    def keep(self, made: Mapping[str, EmbeddedUser], users: Mapping[str, StoredUser]) -> int:
        """Keeps nobody."""
        return 0


class Arm:
    """One pipeline with one way to come by its users."""

    def __init__(self, batcher: Batcher[Task, Answer], catalogue_id: str, cache: NearCache[NearUser]) -> None:
        self._batcher = batcher
        self._catalogue_id = catalogue_id
        self.cache = cache

    async def ask(self, kind: str, user_id: str, movie_number: int) -> None:
        """Sends one request."""
        users = [UserQuery(user_id)]
        task: Task
        if kind == "TopK":
            task = TopKTask(self._catalogue_id, users, Wish(K), MovieFilter(), exclude_seen=True)
        else:
            task = RatingTask(self._catalogue_id, users, np.zeros(1, np.int64), np.array([movie_number], np.int64))
        await self._batcher.submit(task, 1, Priority.INTERACTIVE, time.monotonic() + 30)


@asynccontextmanager
async def arm_of(address: str, checkpoint: Checkpoint, name: str) -> AsyncIterator[Arm]:
    """Puts a pipeline together as the service does, and waits until its cache may keep users."""
    cache: NearCache[NearUser] = NearCache(0 if name == READ else CACHE_BYTES)
    with ThreadPoolExecutor(1) as device, ThreadPoolExecutor(1) as background:
        on_device, aside = in_background(device), in_background(background)
        async with open_channel(address) as channel:
            reader = FeatureReader(channel, 5.0)
            generations = Generations(CatalogueMirror(reader, aside), aside, 0.05, 0.1)
            generation = await generations.prepare(checkpoint, aside)
            await generations.answer_from(generation)
            pipeline = Pipeline(
                (RowsOnly if name == ROWS else NearFeatures)(reader, cache, time.time),
                generations,
                DeviceWork(NUMPY_ROWS),
                on_device,
                answer_without_features=False,
                clock=time.monotonic,
                wall_clock=time.time,
            )
            async with Batcher(KNOBS, pipeline, Company(0.0, not_idle_s)) as batcher:
                feed = ChangeFeed(reader, cache, generations.refresh_soon, random.Random(1))
                following = asyncio.create_task(feed.follow())
                while not cache.is_live:  # noqa: ASYNC110 the feed sets it, with nothing to wait for
                    await asyncio.sleep(0.01)
                yield Arm(batcher, generation.catalogue.catalogue_id, cache)
                following.cancel()


async def processor_us(ask: Callable[[int], Awaitable[None]], callers: int) -> float:
    """Returns this process' CPU time per request with so many callers, each asking one request after another."""
    waiting = iter(range(REQUESTS))

    async def caller() -> None:
        for number in waiting:
            await ask(number)

    before_s = time.process_time()
    await asyncio.gather(*(caller() for _ in range(callers)))
    return (time.process_time() - before_s) / REQUESTS * 1e6


async def measure(address: str, checkpoint: Checkpoint, user_ids: list[str]) -> dict[str, dict[str, float]]:
    """Returns the CPU time in microseconds of each kind of request and way, the median of all rounds."""
    found: dict[str, dict[str, list[float]]] = {}
    async with (
        arm_of(address, checkpoint, READ) as read,
        arm_of(address, checkpoint, ROWS) as rows,
        arm_of(address, checkpoint, EMBEDDED) as embedded,
    ):
        arms = {READ: read, ROWS: rows, EMBEDDED: embedded}
        for arm in arms.values():
            for number, user_id in enumerate(user_ids):
                await arm.ask("TopK", user_id, number)
        for _, kind, callers in itertools.product(range(ROUNDS), ("PredictRating", "TopK"), CALLERS):
            for name, arm in arms.items():

                async def ask(number: int, arm: Arm = arm, kind: str = kind) -> None:
                    await arm.ask(kind, user_ids[number % len(user_ids)], number % NUM_MOVIES)

                of_case = found.setdefault(f"{kind}, {callers} at a time", {})
                of_case.setdefault(name, []).append(await processor_us(ask, callers))
    return {case: {name: round(median(each)) for name, each in ways.items()} for case, ways in found.items()}


def resident_bytes() -> int:
    """Returns what this process has in memory; Linux only (proc_pid_statm(5), field 2)."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def memory_per_user(num_events: int) -> dict[str, int]:
    """Returns what a kept user of so many movies takes, with an embedding of 64 and 64 numbers."""
    kept: list[tuple[StoredUser, EmbeddedUser]] = []
    heads: Any = _Nothing()
    gc.collect()
    before = resident_bytes()
    for number in range(KEPT_USERS):
        rows = UserRows(
            statuses=np.full(1, user_pb2.USER_STATUS_FOUND, np.int32),
            profiles=[user_pb2.UserProfile(gender="F", age=number % 90, occupation="engineer")],
            user_versions=[f"0123456789abcdef.{number % 64}.{number}"],
            offsets=np.array([0, num_events], np.int64),
            movie_numbers=np.arange(num_events, dtype=np.int32),
            ratings=np.ones(num_events, np.float32),
            event_times_ms=np.arange(num_events, dtype=np.int64),
            num_watched=np.array([num_events]),
            deleted_at_ms=np.zeros(1, np.int64),
            expires_at_ms=np.zeros(1, np.int64),
            seen_offsets=np.array([0, num_events], np.int64),
            seen_numbers=np.arange(num_events, dtype=np.int32),
        )
        [user] = stored_users(rows)
        vectors = UserEmbeddings(torch.zeros(1, 64), torch.zeros(1, 64))
        kept.append((user.copied(), EmbeddedUser(vectors, Source.PERSONAL, num_events, weakref.ref(heads))))
    grown = (resident_bytes() - before) / KEPT_USERS
    user, embedded = kept[0]
    return {"by our account": user.size_bytes + embedded.size_bytes, "process grew by": round(grown)}


class _Nothing:
    """Stands where a generation's heads do."""


def gathering_us() -> dict[str, dict[str, float]]:
    """Returns what it takes to bring embedded users together, in microseconds a batch."""
    table = torch.randn(KEPT_USERS, 64)
    alone = [UserEmbeddings(table[row : row + 1].clone(), table[row : row + 1].clone()) for row in range(1000)]
    found = {}
    for size in BATCHES:
        rows = np.random.default_rng(size).integers(0, 1000, size)

        def from_tensors(rows: NDArray[np.int64] = rows) -> object:
            return joined([alone[row] for row in rows.tolist()]) if len(rows) > 1 else alone[rows[0]]

        def from_table(rows: NDArray[np.int64] = rows) -> object:
            index = torch.from_numpy(rows)
            return UserEmbeddings(table[index], table[index])

        ways = {"tensors of their own": from_tensors, "rows of a table": from_table}
        found[f"{size} users"] = {
            name: round(min(timeit.repeat(way, number=500, repeat=5)) / 500 * 1e6, 1) for name, way in ways.items()
        }
    return found


def main() -> None:
    """Measures, prints and records."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--registry", type=Path, help="of an earlier run, whose checkpoints are taken; else trains")
    given = parser.parse_args()
    console = Console()
    figures: dict[str, Any] = {
        "bytes per user": {f"{events} movies": memory_per_user(events) for events in (20, 200)},
        "microseconds to gather a batch": gathering_us(),
    }
    console.print(figures)
    shutil.rmtree(FOLDER, ignore_errors=True)
    data = FOLDER / "data"
    data.mkdir(parents=True)
    write_synthetic(PLAN, data)
    snapshot = take_snapshot(str(data), ReadOptions())
    registry = Registry(given.registry or FOLDER / "registry")
    stack = LocalStack.on_free_ports(FOLDER.resolve(), registry.path.resolve())
    with stack.feature_service():
        for model in MODELS:
            request = Request(model=model, label=model, calibrated=False, reported=False)
            if not given.registry:
                train(snapshot, registry, request, silent)
            checkpoint = load(registry.path_of(registry.labels()[model]))
            with open_sync_channel(stack.feature_address) as channel:
                publish(channel, snapshot.data, divide_again(snapshot, checkpoint.manifest).train)
            user_ids = list(snapshot.data.user_ids[:USERS])
            figures[f"CPU microseconds a request, {model}"] = found = asyncio.run(
                measure(stack.feature_address, checkpoint, user_ids)
            )
            console.print(model, found)
    load_average = round(os.getloadavg()[0], 1)
    console.print(f"written to {record('near_cache', {'load_average': load_average, **figures}).name}")


if __name__ == "__main__":
    main()
