"""What is answered when three times as much is asked as can be, and what does it cost to refuse the rest?

    python benchmarks/overload.py [--model two-tower-history] [--rounds 3] [--seconds 5] [--times 3]

Two model_services on the same data: one that bounds what waits for its loop (the default), one with gRPC's own bounds.
In every round each is asked what it can do (a closed loop of 64 over 16 connections), then `--times` its peak in an
open loop, by callers who give up after 250 ms. Goodput are right answers within that time. One process asks; it writes
frames itself (benchmarks/flood.py), so that of two cores the server has one, and gRPC's threads and the asking share
the other. What a refusal costs is what the server used in the flood beyond what its answers cost in the closed loop.

Last, callers of single ratings are asked for a third of the capacity alone, and again beside a bulk job: four callers
of BatchTopK over 200 users each, all the time.
"""

import argparse
import re
import statistics
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from marquee.client.channel import open_sync_channel
from marquee.v1 import model_service_pb2 as pb
from marquee.v1.model_service_pb2_grpc import ModelServiceStub
from rich.console import Console
from rich.table import Table

from benchmarks.flood import ANSWERED, EXPIRED, Flood, Flooders, Outcome
from benchmarks.prepared import MODELS, Prepared, prepare
from benchmarks.process_usage import cpu_s
from benchmarks.record import record
from deploy.local.processes import ServiceProcess, free_address
from deploy.local.stack import LocalStack
from trainer.synthesis import SynthesisPlan

DATA = SynthesisPlan(num_users=2000, num_movies=4000, num_ratings=100_000, seed=7)
BOUNDED, UNBOUNDED = "bounded", "as gRPC has it"
SERVICES = {BOUNDED: {}, UNBOUNDED: {"MODEL_MAX_PENDING_CALLS": "3000"}}
"""gRPC's own bounds are 1000 and 3000 calls."""
NUM_REQUESTS = 2000
CALLERS_WAIT_MS = 250
PATIENT_MS = 10_000
BULK_USERS, BULK_CALLERS, BULK_K = 200, 4, 10
INTERACTIVE_SHARE = 1 / 3
RATE, BATCH_TOP = "/marquee.v1.ModelService/PredictRating", "/marquee.v1.ModelService/BatchTopK"
_DROPPED = re.compile(r'^marquee_model_dropped_requests_total\{reason="(\w+)"\} (\S+)$', re.MULTILINE)


@dataclass(slots=True)
class Served:
    """A service and what was measured of it, a dictionary a round; its peak is the most that it ever answered."""

    pid: int
    address: str
    metrics: str
    rounds: list[dict[str, float]] = field(default_factory=list)
    peak_per_s: float = 0.0

    def dropped(self) -> dict[str, float]:
        """Returns how many requests left its queue without a batch, by why."""
        with urllib.request.urlopen(f"http://{self.metrics}/metrics", timeout=60) as page:
            return {why: float(count) for why, count in _DROPPED.findall(page.read().decode())}


class Answers:
    """What is right, to each request."""

    def __init__(self, requests: Sequence[pb.PredictRatingRequest], address: str) -> None:
        with open_sync_channel(address) as channel:
            stub = ModelServiceStub(channel)
            self._scores = [stub.PredictRating(request, timeout=60).score for request in requests]

    def check(self, outcome: Outcome) -> None:
        """Raises `AssertionError` if an answer is not the one that was given when nobody else asked."""
        for place, answers in outcome.answers.items():
            for answer in answers:
                score = pb.PredictRatingResponse.FromString(answer).score
                assert abs(score - self._scores[place]) < 1e-4, f"{score} where {self._scores[place]} is right"


@contextmanager
def model_service(stack: LocalStack, name: str, settings: Mapping[str, str]) -> Iterator[Served]:
    """Runs one."""
    address, metrics = free_address(), free_address()
    given = {
        "MODEL_LISTEN": address,
        "MODEL_METRICS_LISTEN": metrics,
        "MODEL_REGISTRY": str(stack.registry),
        "MODEL_FEATURE_SERVICE": stack.feature_address,
        "MODEL_DEVICE": "cpu",
        **settings,
    }
    log = stack.folder / f"model_service {name}.log"
    with ServiceProcess("model_service", address, given, log) as process:
        process.wait_until_serving(180)
        assert process.pid is not None
        yield Served(process.pid, address, metrics)


class Overload:
    """All measurements, asked from one process, and bulk jobs from another."""

    def __init__(self, flooders: Flooders, prepared: Prepared, seconds: float, times: float) -> None:
        rng = np.random.default_rng(11)
        users, movies = prepared.users, prepared.data.movies.movie_ids
        self.requests = [
            pb.PredictRatingRequest(user=pb.UserSelector(user_id=users[user]), movie_id=movies[movie])
            for user, movie in zip(
                rng.integers(0, len(users), NUM_REQUESTS), rng.integers(0, len(movies), NUM_REQUESTS), strict=True
            )
        ]
        self._serialised = [request.SerializeToString() for request in self.requests]
        self._bulk = [
            pb.BatchTopKRequest(
                users=[
                    pb.UserSelector(user_id=users[row]) for row in rng.choice(len(users), BULK_USERS, replace=False)
                ],
                k=BULK_K,
            ).SerializeToString()
            for _ in range(20)
        ]
        self._flooders = flooders
        self._seconds = seconds
        self._times = times

    def capacity(self, served: Served, seconds: float | None = None) -> tuple[Outcome, float]:
        """Asks as fast as is answered; returns what came of it and the server's processor time."""
        return self._measured(
            served, Flood(served.address, RATE, self._serialised, seconds or self._seconds, timeout_ms=PATIENT_MS)
        )

    def round(self, served: Served, right: Answers) -> None:
        """Measures capacity and flood once."""
        closed, closed_s = self.capacity(served)
        served.peak_per_s = max(served.peak_per_s, closed.per_s)
        dropped = served.dropped()
        flood, flood_s = self._measured(served, self._open(served, self._times * served.peak_per_s))
        served.peak_per_s = max(served.peak_per_s, flood.per_s)
        answer_us = closed_s / closed.counts[ANSWERED] * 1e6
        refusals_s = flood_s - answer_us / 1e6 * flood.counts[ANSWERED]
        right.check(closed)
        right.check(flood)
        served.rounds.append(
            {
                "capacity_per_s": closed.per_s,
                "goodput_per_s": flood.per_s,
                "goodput_share_of_peak": flood.per_s / served.peak_per_s,
                "accepted_p50_ms": flood.percentile(50),
                "accepted_p99_ms": flood.percentile(99),
                "refused_share": flood.refused / flood.counts.total(),
                "expired_share": flood.counts[EXPIRED] / flood.counts.total(),
                "refused_p50_ms": float(np.median(flood.refused_ms)) if len(flood.refused_ms) else float("nan"),
                "answer_cpu_us": answer_us,
                "refusal_cpu_us": refusals_s / max(1, flood.refused) * 1e6 if flood.refused else float("nan"),
                "server_cores": flood_s / flood.elapsed_s,
                "asking_cores": flood.used_s / flood.elapsed_s,
                "expired_before_a_batch": served.dropped()["expired"] - dropped["expired"],
            }
        )

    def beside_bulk(self, served: Served, per_s: float, right: Answers) -> dict[str, dict[str, float]]:
        """Asks for single ratings alone, and beside a bulk job."""
        steady = self._open(served, per_s)
        bulk = Flood(
            served.address, BATCH_TOP, self._bulk, self._seconds + 0.5, 0.0, BULK_CALLERS, BULK_CALLERS, PATIENT_MS
        )
        (alone,) = self._flooders.ask(steady)
        beside, job = self._flooders.ask(steady, bulk)
        right.check(alone)
        right.check(beside)
        figures = {
            name: {
                "p50_ms": outcome.percentile(50),
                "p99_ms": outcome.percentile(99),
                "answered_share": outcome.counts[ANSWERED] / outcome.counts.total(),
            }
            for name, outcome in (("alone", alone), ("beside the bulk job", beside))
        }
        figures["the bulk job"] = {"users_per_s": job.per_s * BULK_USERS, "p50_ms": job.percentile(50)}
        return figures

    def _open(self, served: Served, per_s: float) -> Flood:
        return Flood(served.address, RATE, self._serialised, self._seconds, per_s=per_s, timeout_ms=CALLERS_WAIT_MS)

    def _measured(self, served: Served, flood: Flood) -> tuple[Outcome, float]:
        before_s = cpu_s(served.pid)
        (outcome,) = self._flooders.ask(flood)
        return outcome, cpu_s(served.pid) - before_s


def medians(rounds: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Returns the median of each figure over the rounds."""
    return {name: _rounded(statistics.median(each[name] for each in rounds)) for name in rounds[0]}


def _rounded(number: float) -> float:
    return float(f"{number:.4g}")


def show(figures: Mapping[str, Mapping[str, float]]) -> None:
    """Prints figures of both services, or of both situations."""
    names = list(dict.fromkeys(name for each in figures.values() for name in each))
    table = Table("", *figures)
    for name in names:
        table.add_row(name, *(f"{each[name]:g}" if name in each else "" for each in figures.values()))
    Console().print(table)


def main() -> None:
    """Measures, prints and records."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=MODELS[0], choices=MODELS)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=5.0, help="of each loop")
    parser.add_argument("--times", type=float, default=3.0, help="of the capacity that is asked for")
    given = parser.parse_args()
    prepared = prepare(given.model, DATA)
    with ExitStack() as running:
        stack, _ = running.enter_context(prepared.stack())
        services = {
            name: running.enter_context(model_service(stack, name, settings)) for name, settings in SERVICES.items()
        }
        overload = Overload(running.enter_context(Flooders(2)), prepared, given.seconds, given.times)
        right = Answers(overload.requests, services[BOUNDED].address)
        for served in services.values():
            overload.capacity(served, 2.0)
        for _ in range(given.rounds):
            for served in services.values():
                overload.round(served, right)
        figures: dict[str, Any] = {name: medians(served.rounds) for name, served in services.items()}
        per_s = INTERACTIVE_SHARE * figures[BOUNDED]["capacity_per_s"]
        beside = overload.beside_bulk(services[BOUNDED], per_s, right)
    situations = {name: {key: _rounded(value) for key, value in each.items()} for name, each in beside.items()}
    show(figures)
    show(situations)
    every = {name: [{key: _rounded(value) for key, value in each.items()} for each in served.rounds]
             for name, served in services.items()}  # fmt: skip
    written = record(
        f"overload_{given.model}",
        {"times_capacity": given.times, **figures, "interactive and bulk": situations, "rounds": every},
    )
    print(f"written to {written.name}")


if __name__ == "__main__":
    main()
