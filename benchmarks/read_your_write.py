"""Is who writes ever answered from before his own write? Counts answers over two replicas that keep users near.

Redis, feature_service and two replicas of model_service run as processes, on generated data. A pair is one event of a
user, written for a movie that he was just recommended, and the list that he asks a replica for right after it, giving
the `user_version` of the write; then he asks the same replica for more lists. A list is stale if it holds any movie
that was written for him before it was asked for, or if its user_version does not include the write. Four ways in:

* told, with versions: what the service promises;
* untold, with versions: a feed in between hides every change, so only the versions keep old lists away;
* told, without versions: how often the feed alone comes too late;
* untold, without versions: the control, which must find stale lists, or this could not see them.

It fails if a promise is broken, if the control finds nothing, or if less than half of the lookups were hits.
"""

import argparse
import asyncio
import random
import re
import shutil
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from google.protobuf.message import Message
from marquee.client.channel import open_channel, open_sync_channel
from marquee.v1 import feature_service_pb2, feature_service_pb2_grpc, model_service_pb2_grpc
from rich.console import Console

from benchmarks.record import record
from benchmarks.write_and_ask import Plan, write_and_ask
from deploy.local.processes import ServiceProcess, free_address
from deploy.local.stack import LocalStack
from service_runtime.health import Health
from service_runtime.server import Server, Service, snake_case
from trainer.fits import silent
from trainer.publishing import publish
from trainer.readers.read_options import ReadOptions
from trainer.snapshot import divide_again, take_snapshot
from trainer.synthesis import SynthesisPlan, write_synthetic
from trainer.training import Request, train
from two_tower.checkpoint import read_manifest
from two_tower.registry import STABLE, Registry

FOLDER = Path(".run/read_your_write")
DATA = SynthesisPlan(num_users=2000, num_movies=1682, num_ratings=100_000, seed=7)
CACHE_BYTES = 64 << 20
SERVICE = feature_service_pb2.DESCRIPTOR.services_by_name["FeatureService"]
_LOOKUPS = re.compile(r'^marquee_model_near_cache_lookups_total\{outcome="(\w+)"\} (\S+)$', re.MULTILINE)


class UntoldFeed:
    """A feature_service in front of another one, whose feed is live and tells of no user."""

    def __init__(self, stub: "feature_service_pb2_grpc.FeatureServiceAsyncStub") -> None:
        self._stub = stub

    async def stream_changes(self, request: Any, call: Any) -> AsyncIterator[Message]:
        """Tells all but who changed."""
        async for answer in self._stub.StreamChanges(request):
            answer.ClearField("user_ids")
            yield answer

    def __getattr__(self, name: str) -> Any:
        """Passes every other RPC on."""
        method = next((each.name for each in SERVICE.methods if snake_case(each.name) == name), None)
        if method is None:
            raise AttributeError(name)

        async def pass_on(request: Any, call: Any) -> Any:
            return await getattr(self._stub, method)(request)

        return pass_on


@dataclass(frozen=True, slots=True)
class Replicas:
    """Two replicas of model_service that run as processes.

    Attributes:
        stubs: Of each.
        metrics: host:port of each one's metrics.
    """

    stubs: "Sequence[model_service_pb2_grpc.ModelServiceAsyncStub]"
    metrics: Sequence[str]

    def lookups(self) -> Counter[str]:
        """Returns what the replicas looked up near, by outcome."""
        found: Counter[str] = Counter()
        for address in self.metrics:
            with urllib.request.urlopen(f"http://{address}/metrics", timeout=30) as page:
                found.update({outcome: int(float(n)) for outcome, n in _LOOKUPS.findall(page.read().decode())})
        return found


@asynccontextmanager
async def replicas_on(feature_address: str, registry: Path, folder: Path) -> AsyncIterator[Replicas]:
    """Runs two replicas that read from a feature_service."""
    with ExitStack() as processes:
        addresses, metrics = [], []
        for number in range(2):
            address, metrics_address = free_address(), free_address()
            settings = {
                "MODEL_LISTEN": address,
                "MODEL_METRICS_LISTEN": metrics_address,
                "MODEL_REGISTRY": str(registry),
                "MODEL_DEVICE": "cpu",
                "MODEL_FEATURE_SERVICE": feature_address,
                "MODEL_NEAR_CACHE_BYTES": str(CACHE_BYTES),
            }
            process = ServiceProcess("model_service", address, settings, folder / f"model_service_{number}.log")
            processes.enter_context(process)
            await asyncio.to_thread(process.wait_until_serving, 180)
            addresses.append(address)
            metrics.append(metrics_address)
        async with open_channel(addresses[0]) as one, open_channel(addresses[1]) as other:
            stubs = [model_service_pb2_grpc.ModelServiceStub(channel) for channel in (one, other)]
            yield Replicas(stubs, metrics)


async def measure(
    stack: LocalStack, user_ids: Sequence[str], pairs: int, fewer: int, console: Console
) -> dict[str, dict[str, float]]:
    """Returns the counts of each way in."""
    figures: dict[str, dict[str, float]] = {}
    async with open_channel(stack.feature_address) as channel:
        features = feature_service_pb2_grpc.FeatureServiceStub(channel)

        async def ways(feed: str, address: str, plans: Mapping[str, Sequence[Plan]]) -> None:
            async with replicas_on(address, stack.registry, stack.folder / feed) as replicas:
                for name, parts in plans.items():
                    before, began = replicas.lookups(), time.monotonic()
                    found: Counter[str] = Counter()
                    for plan in parts:
                        found += await write_and_ask(features, replicas.stubs, user_ids, plan, random.Random(7))
                    lookups = replicas.lookups() - before
                    figures[f"{feed}, {name}"] = {
                        **{key: found[key] for key in ("pairs", "lists", "stale_lists", "refused")},
                        "hit_rate": round(lookups["hit"] / lookups.total(), 3),
                        "seconds": round(time.monotonic() - began, 1),
                    }
                    console.print(f"{feed}, {name}", figures[f"{feed}, {name}"])

        singles = Plan(pairs // 20, together=1)
        versions = [singles, Plan(pairs - singles.pairs, together=20)]
        without = [Plan(fewer, together=20, with_versions=False)]
        await ways("told", stack.feature_address, {"with versions": versions, "without versions": without})
        untold = Server(
            [Service(SERVICE, UntoldFeed(features))], Health([], []), listen="127.0.0.1:0", drain_timeout_s=1
        )
        async with untold as server:
            plans = {"with versions": [Plan(fewer, together=20)], "without versions": without}
            await ways("untold", server.address, plans)
    return figures


def broken_promises(figures: dict[str, dict[str, float]]) -> list[str]:
    """Returns what the figures do not show."""
    broken = [f"stale lists, {name}" for name in figures if "with v" in name and figures[name]["stale_lists"]]
    if not figures["untold, without versions"]["stale_lists"]:
        broken.append("the control found no stale list")
    if figures["told, with versions"]["hit_rate"] < 0.5:
        broken.append("less than half of the lookups were hits")
    return broken


def main() -> None:
    """Measures, prints and records."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=100_000, help="pairs of the promise (default 100000)")
    parser.add_argument("--fewer", type=int, default=10_000, help="pairs of each other way in (default 10000)")
    given = parser.parse_args()
    console = Console()
    shutil.rmtree(FOLDER, ignore_errors=True)
    data = FOLDER / "data"
    data.mkdir(parents=True)
    write_synthetic(DATA, data)
    snapshot = take_snapshot(str(data), ReadOptions())
    registry = Registry(FOLDER / "registry")
    train(
        snapshot, registry, Request(model="two-tower-history", label=STABLE, calibrated=False, reported=False), silent
    )
    manifest = read_manifest(registry.path_of(registry.labels()[STABLE]))
    stack = LocalStack.on_free_ports(FOLDER.resolve(), registry.path.resolve())
    with stack.feature_service():
        with open_sync_channel(stack.feature_address) as channel:
            publish(channel, snapshot.data, divide_again(snapshot, manifest).train)
        figures = asyncio.run(measure(stack, list(snapshot.data.user_ids), given.pairs, given.fewer, console))
    console.print(f"written to {record('read_your_write', figures).name}")
    if broken := broken_promises(figures):
        sys.exit("; ".join(broken))


if __name__ == "__main__":
    main()
