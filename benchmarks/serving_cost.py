"""What does an answer cost the server, beside an empty call of the same stack? Processor time, side by side.

    python benchmarks/serving_cost.py [--model two-tower-history] [--rounds 5] [--seconds 3] [--smoke]

Redis, feature_service and three model_services (users kept near, few, none) run as processes on generated data:
100,000 users with 20 ratings, 4,000 movies; users are drawn by Zipf's law with exponent 1. Where one in ten is not
near, nine are drawn so from the first 500, and the tenth is one of 2,000 who take turns: he has been let go of when his
turn comes again. 64 calls are under way over 16 connections. All cases are asked in turn in every round; the figures
are medians over rounds. Processor time, user and system, is that of the model service alone; its share of hits is its
own count.
"""

import argparse
import asyncio
import re
import statistics
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

import grpc
import numpy as np
from marquee.client.channel import open_sync_channel
from marquee.client.model_client import ModelClient
from marquee.v1 import model_service_pb2 as pb
from rich.console import Console
from rich.table import Table

from benchmarks.prepared import FULL, SMOKE
from benchmarks.prepared import prepare as prepared_model
from benchmarks.process_usage import cpu_s
from benchmarks.record import record
from benchmarks.rpc_load import Answered, Caller, Load
from deploy.local.processes import ServiceProcess, free_address
from deploy.local.stack import LocalStack

NUM_REQUESTS = 20_000
CACHES = {"near": 1 << 30, "few": 6 << 20, "none": 0}
"""Bytes of the near cache: all users fit, some 1,500 do, nobody does."""
NUM_FREQUENT = 500
_SEED = 11
PAIRS_TOGETHER = 256
GRID = (16, 256)
"""Users, and movies of which each is asked about for all of them: as who ranks candidates of his own asks."""
RATE, BATCH_RATE, TOP_K = (
    f"/marquee.v1.ModelService/{name}" for name in ("PredictRating", "BatchPredictRatings", "TopK")
)
_LOOKUPS = re.compile(r'^marquee_model_near_cache_lookups_total\{outcome="(\w+)"\} (\S+)$', re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Serving:
    """A server under measurement: its process, where it listens, and where it tells metrics ("": nowhere)."""

    pid: int
    address: str
    metrics: str = ""

    def lookups(self) -> dict[str, float]:
        """Returns how often users were looked up near, by outcome."""
        if not self.metrics:
            return {}
        with urllib.request.urlopen(f"http://{self.metrics}/metrics", timeout=30) as page:
            return {outcome: float(count) for outcome, count in _LOOKUPS.findall(page.read().decode())}


@dataclass(slots=True)
class Case:
    """One way to ask.

    Attributes:
        name: What the table calls it.
        server: Who is asked.
        ask: Asks for a while; returns what was answered.
        answers_per_call: For instance the pairs of a batch.
        cpu_us: Per answer, of each round.
        rounds: What was answered in each round.
        hits: Share of users found near, of each round; empty where nothing was looked up.
    """

    name: str
    server: Serving
    ask: Callable[[], Answered]
    answers_per_call: int = 1
    cpu_us: list[float] = field(default_factory=list)
    rounds: list[Answered] = field(default_factory=list)
    hits: list[float] = field(default_factory=list)

    def measure(self) -> None:
        """Asks for one round."""
        before, cpu_before = self.server.lookups(), cpu_s(self.server.pid)
        answered = self.ask()
        used_s, after = cpu_s(self.server.pid) - cpu_before, self.server.lookups()
        self.rounds.append(answered)
        self.cpu_us.append(used_s * 1e6 / (answered.count * self.answers_per_call))
        looked_up = {outcome: after[outcome] - before.get(outcome, 0.0) for outcome in after}
        if total := sum(looked_up.values()):
            self.hits.append(looked_up.get("hit", 0.0) / total)

    def forget(self) -> None:
        """Drops what was measured: it warmed up."""
        self.cpu_us, self.rounds, self.hits = [], [], []

    def figures(self, empty_us: float) -> dict[str, float | None]:
        """Returns the medians over all rounds; no hit rate where nothing was looked up."""
        cpu_us = statistics.median(self.cpu_us)
        return {
            "cpu_us": round(cpu_us, 2),
            "times_empty": round(cpu_us / empty_us, 3),
            "per_core_s": round(1e6 / cpu_us),
            "answers_per_s": round(
                statistics.median(each.count * self.answers_per_call / each.elapsed_s for each in self.rounds)
            ),
            "p50_ms": round(statistics.median(each.percentile(50) for each in self.rounds), 2),
            "p99_ms": round(statistics.median(each.percentile(99) for each in self.rounds), 2),
            "hit_rate": round(statistics.median(self.hits), 3) if self.hits else None,
        }


def zipf_ranks(rng: np.random.Generator, size: int, count: int) -> Sequence[int]:
    """Returns places 0 to size - 1, place r with a probability that falls as 1 / (r + 1)."""
    weights = 1.0 / np.arange(1, size + 1)
    return [int(rank) for rank in rng.choice(size, count, p=weights / weights.sum())]


def one_in_ten_rare(rng: np.random.Generator, users: Sequence[str]) -> Sequence[str]:
    """Returns users to ask for; every tenth is one of 2,000 who take turns, if there are so many."""
    frequent, rare = users[:NUM_FREQUENT], users[NUM_FREQUENT:]
    ranks = zipf_ranks(rng, len(frequent), NUM_REQUESTS)
    return [rare[place // 10 % len(rare)] if place % 10 == 0 else frequent[rank] for place, rank in enumerate(ranks)]


def draw(rng: np.random.Generator, users: Sequence[str], movies: Sequence[str]) -> tuple[list[str], list[str]]:
    """Returns who is asked about, by Zipf's law, and about which movie."""
    drawn = [users[rank] for rank in zipf_ranks(rng, len(users), NUM_REQUESTS)]
    return drawn, [movies[row] for row in rng.integers(0, len(movies), NUM_REQUESTS)]


def rating_requests(users: Sequence[str], movies: Sequence[str]) -> list[bytes]:
    """Returns the question about each user and the movie in the same place, serialised."""
    return [
        pb.PredictRatingRequest(user=pb.UserSelector(user_id=user), movie_id=movie).SerializeToString()
        for user, movie in zip(users, movies, strict=True)
    ]


def list_requests(users: Sequence[str]) -> list[bytes]:
    """Returns the question for a list of ten for each user, serialised."""
    return [pb.TopKRequest(user=pb.UserSelector(user_id=user), k=10).SerializeToString() for user in users]


@contextmanager
def empty_server() -> Iterator[Serving]:
    """Runs the server that does nothing."""
    address = free_address()
    process = subprocess.Popen([sys.executable, "-m", "benchmarks.empty_service", address])
    try:
        with open_sync_channel(address) as channel:
            ask: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary("/empty/Call")
            ask(b"", timeout=60, wait_for_ready=True)
        yield Serving(process.pid, address)
    finally:
        process.terminate()
        process.wait(30)


@contextmanager
def model_service(stack: LocalStack, name: str, cache_bytes: int) -> Iterator[Serving]:
    """Runs a model service that keeps so much of users near."""
    address, metrics = free_address(), free_address()
    settings = {
        "MODEL_LISTEN": address,
        "MODEL_METRICS_LISTEN": metrics,
        "MODEL_REGISTRY": str(stack.registry),
        "MODEL_FEATURE_SERVICE": stack.feature_address,
        "MODEL_DEVICE": "cpu",
        "MODEL_NEAR_CACHE_BYTES": str(cache_bytes),
        # A refusal ends a measurement, and a busy machine would refuse some of 64 callers.
        "MODEL_MAX_PENDING_CALLS": "1000",
        "MODEL_MAX_WAITING_ROWS": "100000",
    }
    with ServiceProcess("model_service", address, settings, stack.folder / f"model_service_{name}.log") as process:
        process.wait_until_serving(180)
        assert process.pid is not None
        yield Serving(process.pid, address, metrics)


def cases_of(
    caller: Caller, servers: Mapping[str, Serving], users: Sequence[str], movies: Sequence[str], seconds: float
) -> list[Case]:
    """Returns all cases; they ask about the same draws of users and movies."""
    rng = np.random.default_rng(_SEED)
    drawn, wanted = draw(rng, users, movies)
    rate, top = rating_requests(drawn, wanted), list_requests(drawn)
    together = [
        pairs(drawn[start : start + PAIRS_TOGETHER], wanted[start : start + PAIRS_TOGETHER]).SerializeToString()
        for start in range(0, NUM_REQUESTS - PAIRS_TOGETHER, PAIRS_TOGETHER)
    ]

    grids = [
        grid(drawn[start : start + GRID[0]], wanted[start : start + GRID[1]]).SerializeToString()
        for start in range(0, NUM_REQUESTS - GRID[1], GRID[1])
    ]
    tenth = rating_requests(one_in_ten_rare(rng, users), wanted)

    def unary(server: str, method: str, requests: Sequence[bytes], in_flight: int = 64) -> Callable[[], Answered]:
        load = Load(servers[server].address, method, requests, in_flight, min(16, in_flight), seconds)
        return lambda: caller.call(load)

    def going_on(server: str, method: str, requests: Sequence[bytes]) -> Callable[[], Answered]:
        """Begins each round where the last one ended, so that nobody is asked for again too soon."""
        left = list(requests)

        def ask() -> Answered:
            answered = unary(server, method, left)()
            asked = answered.count % len(left)
            left[:] = left[asked:] + left[:asked]
            return answered

        return ask

    def coalesced() -> Answered:
        return asyncio.run(ask_through_client(servers["near"].address, drawn, wanted, seconds))

    return [
        Case("empty", servers["empty"], unary("empty", RATE, rate)),
        Case("PredictRating, near", servers["near"], unary("near", RATE, rate)),
        Case("PredictRating, 1 in 10 not near", servers["few"], going_on("few", RATE, tenth)),
        Case("PredictRating, none near", servers["none"], unary("none", RATE, rate)),
        Case("TopK of 10, near", servers["near"], unary("near", TOP_K, top)),
        Case("TopK of 10, none near", servers["none"], unary("none", TOP_K, top)),
        Case("PredictRating through the client, near", servers["near"], coalesced),
        Case(
            f"BatchPredictRatings of {PAIRS_TOGETHER}, near",
            servers["near"],
            unary("near", BATCH_RATE, together, in_flight=4),
            PAIRS_TOGETHER,
        ),
        Case(
            f"BatchPredictRatings of {GRID[0]} users and {GRID[1]} movies, near",
            servers["near"],
            unary("near", BATCH_RATE, grids, in_flight=4),
            GRID[0] * GRID[1],
        ),
    ]


def pairs(users: Sequence[str], movies: Sequence[str]) -> pb.BatchPredictRatingsRequest:
    """Returns the question about each user and the movie in the same place."""
    user_places = {user: place for place, user in enumerate(dict.fromkeys(users))}
    movie_places = {movie: place for place, movie in enumerate(dict.fromkeys(movies))}
    return pb.BatchPredictRatingsRequest(
        user_ids=list(user_places),
        movie_ids=list(movie_places),
        user_indices=[user_places[user] for user in users],
        movie_indices=[movie_places[movie] for movie in movies],
    )


def grid(users: Sequence[str], movies: Sequence[str]) -> pb.BatchPredictRatingsRequest:
    """Returns the question about each of the first users of different names and each movie, as many as there may be."""
    return pairs([user for user in users for _ in movies], [movie for _ in users for movie in movies])


async def ask_through_client(address: str, users: Sequence[str], movies: Sequence[str], seconds: float) -> Answered:
    """Asks single questions, 64 at a time, through the client that gathers them."""
    latencies: list[float] = []
    place = 0
    async with ModelClient(address, timeout_s=30) as client:
        await client.predict_rating(users[0], movies[0])
        began = time.perf_counter()

        async def ask_on() -> None:
            nonlocal place
            while (asked := time.perf_counter()) < began + seconds:
                number, place = place % len(users), place + 1
                await client.predict_rating(users[number], movies[number])
                latencies.append(time.perf_counter() - asked)

        await asyncio.gather(*(ask_on() for _ in range(64)))
        elapsed_s = time.perf_counter() - began
    return Answered(len(latencies), np.array(latencies) * 1000, elapsed_s)


def show(figures: Mapping[str, Mapping[str, float | None]]) -> None:
    """Prints all cases."""
    table = Table("", *next(iter(figures.values())))
    for name, row in figures.items():
        table.add_row(name, *("" if value is None else f"{value:g}" for value in row.values()))
    Console().print(table)


def main() -> None:
    """Measures, prints and records."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="two-tower-history")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0, help="of each case in each round")
    parser.add_argument("--smoke", action="store_true", help="one short round on small data; writes nothing")
    given = parser.parse_args()
    rounds, seconds = (1, 0.3) if given.smoke else (given.rounds, given.seconds)
    prepared = prepared_model(given.model, SMOKE if given.smoke else FULL)
    with ExitStack() as running:
        stack, _ = running.enter_context(prepared.stack())
        servers = {"empty": running.enter_context(empty_server())}
        for name, cache_bytes in CACHES.items():
            servers[name] = running.enter_context(model_service(stack, name, cache_bytes))
        cases = cases_of(
            running.enter_context(Caller()), servers, prepared.users, prepared.data.movies.movie_ids, seconds
        )
        for case in cases:
            case.measure()
            case.forget()
        for _ in range(rounds):
            for case in cases:
                case.measure()
    empty_us = statistics.median(cases[0].cpu_us)
    figures = {case.name: case.figures(empty_us) for case in cases}
    show(figures)
    if not given.smoke:
        print(f"written to {record(f'serving_cost_{given.model}', figures).name}")


if __name__ == "__main__":
    main()
