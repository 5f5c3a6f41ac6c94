"""Does anybody notice that models are swapped? Steady load at half of what a service can do, a new model every 10 s.

    python benchmarks/reload.py [--model two-tower-history] [--swaps 200] [--every 10]

Redis, feature_service and model_service run as processes on generated data. Four trainings of one model that differ in
their seed take the label in turn, so that each is read anew: of what served, only the one before stays in memory. Half
of the time before the first swap nothing is swapped: that is what tails and memory are compared with. It fails if a
question fails, if a version answers one question in two ways, or if a version that took the label never answered.
"""

import argparse
import shutil
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np
from marquee.client.channel import open_sync_channel
from marquee.v1 import model_service_pb2 as pb
from rich.console import Console

from benchmarks.process_usage import pss_bytes
from benchmarks.record import record
from benchmarks.rpc_load import Caller, Load
from benchmarks.steady_load import SteadyAnswers, SteadyCaller, SteadyLoad
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

FOLDER = Path(".run/reload")
DATA = SynthesisPlan(num_users=6000, num_movies=4000, num_ratings=500_000, seed=5)
NUM_MODELS = 4
NUM_PAIRS = 512
SHARE_OF_CAPACITY = 0.5
RATE = "/marquee.v1.ModelService/PredictRating"


def prepare(model: str) -> tuple[LocalStack, Registry, list[str], list[tuple[str, str]]]:
    """Trains the models; returns where they are served, their versions and what is asked."""
    shutil.rmtree(FOLDER, ignore_errors=True)
    (FOLDER / "data").mkdir(parents=True)
    write_synthetic(DATA, FOLDER / "data")
    snapshot = take_snapshot(str(FOLDER / "data"), ReadOptions())
    registry = Registry(FOLDER.resolve() / "registry")
    for seed in range(NUM_MODELS):
        train(snapshot, registry, Request(model=model, seed=seed, calibrated=False, reported=False), silent)
    stack = LocalStack.on_free_ports(FOLDER.resolve(), registry.path)
    rng = np.random.default_rng(1)
    users = [snapshot.data.user_ids[row] for row in rng.integers(0, len(snapshot.data.user_ids), NUM_PAIRS)]
    movies = [snapshot.data.movies.movie_ids[row] for row in rng.integers(0, DATA.num_movies, NUM_PAIRS)]
    return stack, registry, registry.versions(), list(zip(users, movies, strict=True))


def capacity_per_s(address: str, pairs: Sequence[tuple[str, str]]) -> float:
    """Returns how many answers a second many waiting callers get."""
    requests = [
        pb.PredictRatingRequest(user=pb.UserSelector(user_id=user), movie_id=movie).SerializeToString()
        for user, movie in pairs
    ]
    with Caller() as caller:
        caller.call(Load(address, RATE, requests, seconds=3))
        answered = caller.call(Load(address, RATE, requests, seconds=5))
    return answered.count / answered.elapsed_s


def swap_on(registry: Registry, versions: Sequence[str], swaps: int, every_s: float, pid: int) -> list[int]:
    """Moves the label at a steady pace; returns the memory before each move, and after the last."""
    held = []
    began = time.monotonic()
    for number in range(swaps):
        time.sleep(max(0.0, began + number * every_s - time.monotonic()))
        held.append(pss_bytes(pid))
        registry.set_label(STABLE, versions[(number + 1) % len(versions)], reason="benchmark")
    time.sleep(max(0.0, began + swaps * every_s - time.monotonic()))
    return [*held, pss_bytes(pid)]


def wrong_answers(answers: SteadyAnswers, versions: Sequence[str], swaps: int) -> list[str]:
    """Returns what should not have happened."""
    wrong = [f"{count} questions failed: {status}" for status, count in answers.failures.items()]
    if two := [version for (version, _), scores in answers.scores.items() if len(scores) > 1]:
        wrong.append(f"{len(two)} questions were answered in two ways by one version")
    answered = {version for version, _ in answers.scores}
    if missing := set(versions[: swaps + 1]) - answered:
        wrong.append(f"{len(missing)} versions never answered")
    return wrong


def main() -> None:
    """Measures, prints and records."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="two-tower-history")
    parser.add_argument("--swaps", type=int, default=200)
    parser.add_argument("--every", type=float, default=10.0, help="seconds from one to the next")
    given = parser.parse_args()
    stack, registry, versions, pairs = prepare(given.model)
    with ExitStack() as running:
        running.enter_context(stack.feature_service())
        snapshot = take_snapshot(str(FOLDER / "data"), ReadOptions())
        with open_sync_channel(stack.feature_address) as channel:
            publish(channel, snapshot.data, divide_again(snapshot, read_manifest(registry.path_of(versions[0]))).train)
        address = free_address()
        settings = {
            "MODEL_LISTEN": address,
            "MODEL_REGISTRY": str(registry.path),
            "MODEL_FEATURE_SERVICE": stack.feature_address,
            "MODEL_DEVICE": "cpu",
        }
        service = ServiceProcess("model_service", address, settings, FOLDER / "model_service.log")
        running.enter_context(service)
        service.wait_until_serving(180)
        assert service.pid is not None
        per_s = SHARE_OF_CAPACITY * capacity_per_s(address, pairs)
        quiet_s = max(30.0, given.swaps * given.every / 4)
        with SteadyCaller(SteadyLoad(address, pairs, per_s, quiet_s)) as caller:
            quiet = caller.answers()
        with SteadyCaller(SteadyLoad(address, pairs, per_s, given.swaps * given.every)) as caller:
            held = swap_on(registry, versions, given.swaps, given.every, service.pid)
            swapped = caller.answers()
    tenth = min(10, given.swaps)
    figures = {
        "swaps": given.swaps,
        "questions_per_s": round(per_s, 1),
        "questions": len(quiet.latencies_ms) + len(swapped.latencies_ms),
        "failed": sum(quiet.failures.values()) + sum(swapped.failures.values()),
        **{
            f"{name}_p{percent:g}_ms": round(float(np.percentile(answers.latencies_ms, percent)), 2)
            for name, answers in (("quiet", quiet), ("swapped", swapped))
            for percent in (50, 99, 99.9)
        },
        "p99_ratio": round(float(np.percentile(swapped.latencies_ms, 99) / np.percentile(quiet.latencies_ms, 99)), 3),
        "pss_mb_after_swap": {str(place): round(held[place] / 1e6, 1) for place in sorted({0, 1, tenth, given.swaps})},
        "pss_last_over_tenth": round(held[-1] / held[tenth], 4),
    }
    Console().print(figures)
    print(f"written to {record(f'reload_{given.model}', figures).name}")
    if wrong := wrong_answers(swapped, versions, given.swaps):
        sys.exit("; ".join(wrong))


if __name__ == "__main__":
    main()
