"""Does anybody notice that models are swapped? Steady load at half of what a service can do, a new model every 10 s.

    python benchmarks/reload.py [--model two-tower-history] [--swaps 200] [--every 10] [--quick]

Redis, feature_service and model_service run as processes on generated data. Four trainings of one model that differ in
their seed are copied in turn to a version that nobody has served yet, which takes the label. The load never pauses.
Before the first swap, after the last, and in between, there are times without swaps: those are what latencies are
compared with, so that what else the machine does falls on both. 200 swaps take 39 minutes.

What each training answers to each question is asked before, without load. An answer is wrong if it is none; if its
score is not that of the version it names; if it is of an older version than one that had answered before it was asked.

It fails if an answer is wrong or a version never answered; and unless --quick, if the 99th percentile is above 1.3 of
that without swaps, or memory after the last swap is more than 1% above that after the tenth (medians of five). --quick
swaps ten small models in a minute under a load that any machine bears, tells what it saw and writes nothing.
"""

import argparse
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from marquee.client.channel import open_sync_channel
from marquee.v1 import model_service_pb2 as pb
from marquee.v1.model_service_pb2_grpc import ModelServiceStub
from numpy.typing import NDArray
from rich.console import Console

from benchmarks.fresh_versions import FreshVersions
from benchmarks.process_usage import cpu_s, pss_bytes
from benchmarks.record import record
from benchmarks.rpc_load import Caller, Load
from benchmarks.steady_load import SteadyCaller, SteadyLoad
from benchmarks.swap_figures import (
    MIN_TOLD_APART,
    Timeline,
    cpu_figures,
    failure_figures,
    judge,
    latency_figures,
    memory_figures,
    share_told_apart,
    wrong_answers,
)
from deploy.local.processes import ServiceProcess, free_address
from deploy.local.stack import LocalStack
from trainer.fits import silent
from trainer.publishing import publish
from trainer.readers.read_options import ReadOptions
from trainer.snapshot import Snapshot, divide_again, take_snapshot
from trainer.synthesis import SynthesisPlan, write_synthetic
from trainer.training import Request, train
from two_tower.checkpoint import read_manifest
from two_tower.registry import Registry

FOLDER = Path(".run/reload")
DATA = SynthesisPlan(num_users=6000, num_movies=4000, num_ratings=500_000, seed=5)
QUICK_DATA = SynthesisPlan(num_users=300, num_movies=400, num_ratings=8_000, seed=5)
NUM_MODELS = 4
NUM_PAIRS = 512
SHARE_OF_CAPACITY = 0.5
QUICK_PER_S = 50.0
# As many as a server of any speed lets wait before it begins to refuse: service_runtime/pending_calls.py.
NUM_CALLERS = 32
RATE = "/marquee.v1.ModelService/PredictRating"
SWAPS_IN_A_BLOCK = 50
TAKEN_UP_WITHIN_S = 60.0


def prepare(model: str, plan: SynthesisPlan) -> tuple[LocalStack, Registry, Snapshot]:
    """Trains the models."""
    shutil.rmtree(FOLDER, ignore_errors=True)
    (FOLDER / "data").mkdir(parents=True)
    write_synthetic(plan, FOLDER / "data")
    snapshot = take_snapshot(str(FOLDER / "data"), ReadOptions())
    registry = Registry(FOLDER.resolve() / "registry")
    for seed in range(NUM_MODELS):
        train(snapshot, registry, Request(model=model, seed=seed, calibrated=False, reported=False), silent)
    return LocalStack.on_free_ports(FOLDER.resolve(), registry.path), registry, snapshot


def pairs_of(snapshot: Snapshot) -> list[tuple[str, str]]:
    """Returns what is asked: users and movies."""
    rng = np.random.default_rng(1)
    user_ids, movie_ids = snapshot.data.user_ids, snapshot.data.movies.movie_ids
    users = [user_ids[row] for row in rng.integers(0, len(user_ids), NUM_PAIRS)]
    movies = [movie_ids[row] for row in rng.integers(0, len(movie_ids), NUM_PAIRS)]
    return list(zip(users, movies, strict=True))


def capacity_per_s(address: str, pairs: Sequence[tuple[str, str]], seconds: float) -> float:
    """Returns how many answers a second many waiting callers get."""
    requests = [
        pb.PredictRatingRequest(user=pb.UserSelector(user_id=user), movie_id=movie).SerializeToString()
        for user, movie in pairs
    ]
    with Caller() as caller:
        caller.call(Load(address, RATE, requests, NUM_CALLERS, seconds=seconds / 2))
        answered = caller.call(Load(address, RATE, requests, NUM_CALLERS, seconds=seconds))
    return answered.count / answered.elapsed_s


def expected_scores(address: str, fresh: FreshVersions, pairs: Sequence[tuple[str, str]]) -> NDArray[np.float32]:
    """Returns what each trained model answers to each pair, asked one at a time while it serves. float32 [S, P]."""
    expected = np.full((NUM_MODELS, len(pairs)), np.nan, np.float32)  # [S, P]
    with open_sync_channel(address) as channel:
        stub = ModelServiceStub(channel)  # type: ignore[no-untyped-call, unused-ignore]
        for _ in range(NUM_MODELS):
            name = fresh.publish()
            give_up_at = time.monotonic() + TAKEN_UP_WITHIN_S
            row = fresh.like(name)
            for place, (user, movie) in enumerate(pairs):
                request = pb.PredictRatingRequest(user=pb.UserSelector(user_id=user), movie_id=movie)
                answer = stub.PredictRating(request, timeout=30)
                while answer.model_version != name:
                    if time.monotonic() > give_up_at:
                        raise SystemExit(f"{name} was not taken up within {TAKEN_UP_WITHIN_S:g} s")
                    time.sleep(0.05)
                    answer = stub.PredictRating(request, timeout=30)
                expected[row, place] = answer.score
    return expected


def device_bytes(pid: int) -> int | None:
    """Returns what a process holds of the memory of NVIDIA devices; None if there is no such device."""
    if shutil.which("nvidia-smi") is None:
        return None
    query = ("nvidia-smi", "--query-compute-apps=pid,used_memory", "--format=csv,noheader,nounits")
    told = subprocess.run(query, capture_output=True, text=True, check=False).stdout
    rows = [line.split(",") for line in told.splitlines() if line.count(",") == 1]
    return sum(int(mib) * 2**20 for holder, mib in rows if int(holder) == pid)


def live(fresh: FreshVersions, pid: int, swaps: int, every_s: float, quiet_s: float) -> Timeline:
    """Lets time pass, without swaps and with them, block by block."""
    timeline = Timeline()

    def look() -> None:
        timeline.pss.append(pss_bytes(pid))
        if (held := device_bytes(pid)) is not None:
            timeline.device.append(held)

    def rest() -> None:
        began, used_s = time.monotonic(), cpu_s(pid)
        time.sleep(quiet_s)
        timeline.quiet.append((began, time.monotonic()))
        timeline.cpu["quiet"] += cpu_s(pid) - used_s

    rest()
    look()
    left = swaps
    while left:
        block = min(left, SWAPS_IN_A_BLOCK)
        began, used_s = time.monotonic(), cpu_s(pid)
        for number in range(block):
            time.sleep(max(0.0, began + number * every_s - time.monotonic()))
            fresh.publish()
            timeline.set_at.append(time.monotonic())
            time.sleep(max(0.0, began + (number + 0.95) * every_s - time.monotonic()))
            look()
        time.sleep(max(0.0, began + block * every_s - time.monotonic()))
        timeline.swapping.append((began, time.monotonic()))
        timeline.cpu["swapping"] += cpu_s(pid) - used_s
        left -= block
        rest()
    return timeline


def main() -> None:
    """Measures, prints, judges and records."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="two-tower-history")
    parser.add_argument("--swaps", type=int, default=None, help="by default 200, or 10 with --quick")
    parser.add_argument("--every", type=float, default=None, help="seconds from one to the next; by default 10, or 1.5")
    parser.add_argument("--quiet", type=float, default=None, help="seconds of each time without swaps; 60, or 5")
    parser.add_argument("--quick", action="store_true", help="small models; wrong answers only are judged")
    given = parser.parse_args()
    swaps = given.swaps or (10 if given.quick else 200)
    every_s = given.every or (1.5 if given.quick else 10.0)
    quiet_s = given.quiet or (5.0 if given.quick else 60.0)
    stack, registry, snapshot = prepare(given.model, QUICK_DATA if given.quick else DATA)
    pairs = pairs_of(snapshot)
    trained = registry.versions()
    fresh = FreshVersions(registry, trained)
    with ExitStack() as running:
        running.enter_context(stack.feature_service())
        with open_sync_channel(stack.feature_address) as channel:
            publish(channel, snapshot.data, divide_again(snapshot, read_manifest(registry.path_of(trained[0]))).train)
        address = free_address()
        settings = {
            "MODEL_LISTEN": address,
            "MODEL_REGISTRY": str(registry.path),
            "MODEL_FEATURE_SERVICE": stack.feature_address,
            "MODEL_DEVICE": "auto",
            # The default, or so often that a swap is over before the next one.
            "MODEL_REGISTRY_POLL_S": str(min(2.0, every_s / 5)),
        }
        service = ServiceProcess("model_service", address, settings, FOLDER / "model_service.log")
        running.enter_context(service)
        service.wait_until_serving(180)
        assert service.pid is not None
        expected = expected_scores(address, fresh, pairs)
        # Half of what a busy machine could do a moment ago may be more than it can do now; what it then refuses is not
        # the doing of swaps.
        per_s = QUICK_PER_S if given.quick else SHARE_OF_CAPACITY * capacity_per_s(address, pairs, 10)
        warming = len(fresh.names)
        blocks = -(-swaps // SWAPS_IN_A_BLOCK)
        at_most_s = 60 + 1.5 * (swaps * every_s + (blocks + 1) * quiet_s)
        with SteadyCaller(SteadyLoad(address, pairs, per_s, at_most_s)) as caller:
            timeline = live(fresh, service.pid, swaps, every_s, quiet_s)
            answers = caller.answers()
    figures: dict[str, Any] = {
        "swaps": swaps,
        "questions_per_s": round(per_s, 1),
        "questions": len(answers.due_s),
        **failure_figures(answers, timeline, fresh.names[warming:]),
        "share_of_questions_that_tell_versions_apart": round(share_told_apart(expected), 3),
        **latency_figures(answers, timeline, fresh.names[warming:]),
        **memory_figures(timeline.pss, "pss"),
        **(memory_figures(timeline.device, "device") if timeline.device else {}),
        **cpu_figures(answers, timeline),
    }
    wrong = wrong_answers(answers, fresh.names, expected, warming - 1)
    if figures["share_of_questions_that_tell_versions_apart"] < MIN_TOLD_APART:
        wrong.append("the versions answer too many questions alike: a wrong one would not be noticed")
    figures["wrong"] = wrong
    Console().print(figures)
    if not given.quick:
        wrong += judge(figures)
        print(f"written to {record(f'reload_{given.model}', figures).name}")
    if wrong:
        sys.exit("; ".join(wrong))


if __name__ == "__main__":
    main()
