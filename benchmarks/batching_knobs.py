"""What do the batching knobs of model_service cost or save?

Trains two-tower-history on synthetic data, serves it beside a real feature_service, and lets 64 callers ask TopK one
call after another for each setting. Every setting has its turn twice, so that a machine with other work is noticed. The
processor time of the service per request is the figure to trust then; the rates are hints.
"""

import asyncio
import itertools
import os
import shutil
import time
from pathlib import Path

import numpy as np
from marquee.client.channel import open_channel, open_sync_channel
from marquee.v1 import model_service_pb2, model_service_pb2_grpc
from rich.console import Console

from benchmarks.record import record
from deploy.local.processes import ServiceProcess, free_address
from deploy.local.stack import LocalStack
from trainer.fits import silent
from trainer.publishing import publish
from trainer.readers.read_options import ReadOptions
from trainer.snapshot import divide_again, take_snapshot
from trainer.synthesis import SynthesisPlan, write_synthetic
from trainer.training import Request, train
from two_tower.checkpoint import read_manifest
from two_tower.registry import STABLE, Registry

FOLDER = Path(".run/batching_knobs")
BATCHES_IN_FLIGHT = ("1", "2")
GAPS_MS = ("0", "1", "3")
ROUNDS = 2
CALLERS = 64
SECONDS = 4.0
K = 10


async def ask(address: str, user_ids: list[str]) -> list[float]:
    """Asks for `SECONDS` with all callers; returns how long each call took, in milliseconds."""
    durations_ms: list[float] = []
    async with open_channel(address) as channel:
        stub = model_service_pb2_grpc.ModelServiceStub(channel)
        stop = time.monotonic() + SECONDS

        async def caller(number: int) -> None:
            rng = np.random.default_rng(number)
            while time.monotonic() < stop:
                user = model_service_pb2.UserSelector(user_id=str(rng.choice(user_ids)))
                began = time.perf_counter()
                await stub.TopK(model_service_pb2.TopKRequest(user=user, k=K), timeout=10)
                durations_ms.append((time.perf_counter() - began) * 1000)

        await asyncio.gather(*(caller(number) for number in range(CALLERS)))
    return durations_ms


def processor_time_s(pid: int | None) -> float:
    """Returns what a process has used so far, in user and system mode; Linux only (proc_pid_stat(5), fields 14, 15)."""
    after_name = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(int(ticks) for ticks in after_name[11:13]) / os.sysconf("SC_CLK_TCK")


def measure(stack: LocalStack, user_ids: list[str], knobs: dict[str, str]) -> dict[str, float]:
    """Serves with some knobs and measures."""
    address = free_address()
    settings = {
        "MODEL_LISTEN": address,
        "MODEL_REGISTRY": str(stack.registry),
        "MODEL_DEVICE": "cpu",
        "MODEL_FEATURE_SERVICE": stack.feature_address,
        **knobs,
    }
    with ServiceProcess("model_service", address, settings, stack.folder / "model_service.log") as process:
        process.wait_until_serving(60)
        before_s = processor_time_s(process.pid)
        durations_ms = asyncio.run(ask(address, user_ids))
        processor_s = processor_time_s(process.pid) - before_s
    return {
        "processor_us_per_request": round(processor_s / len(durations_ms) * 1e6),
        "requests_per_s": round(len(durations_ms) / SECONDS),
        "p50_ms": round(float(np.percentile(durations_ms, 50)), 1),
        "p99_ms": round(float(np.percentile(durations_ms, 99)), 1),
    }


def main() -> None:
    """Measures, prints and records."""
    console = Console()
    shutil.rmtree(FOLDER, ignore_errors=True)
    data = FOLDER / "data"
    data.mkdir(parents=True)
    write_synthetic(SynthesisPlan(num_users=943, num_movies=1682, num_ratings=100_000, seed=7), data)
    snapshot = take_snapshot(str(data), ReadOptions())
    registry = Registry(FOLDER / "registry")
    train(snapshot, registry, Request(model="two-tower-history", label=STABLE), silent)
    manifest = read_manifest(registry.path_of(registry.labels()[STABLE]))
    stack = LocalStack.on_free_ports(FOLDER.resolve(), registry.path.resolve())
    figures: dict[str, list[dict[str, float]]] = {}
    with stack.feature_service():
        with open_sync_channel(stack.feature_address) as channel:
            publish(channel, snapshot.data, divide_again(snapshot, manifest).train)
        for _, batches, gap_ms in itertools.product(range(ROUNDS), BATCHES_IN_FLIGHT, GAPS_MS):
            knobs = {"MODEL_MAX_BATCHES_IN_FLIGHT": batches, "MODEL_BATCH_GAP_MS": gap_ms}
            found = measure(stack, list(snapshot.data.user_ids), knobs)
            name = f"{batches} in flight, gap {gap_ms} ms"
            figures.setdefault(name, []).append(found)
            console.print(name, found)
    load = {"callers": CALLERS, "load_average": round(os.getloadavg()[0], 1)}
    console.print(f"written to {record('batching_knobs', {**load, **figures}).name}")


if __name__ == "__main__":
    main()
