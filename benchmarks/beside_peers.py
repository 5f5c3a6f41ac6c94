"""What does an answer cost beside what a user might take instead? The same towers and answers, side by side.

    python benchmarks/beside_peers.py [--model two-tower-history] [--embedded] [--rounds 5] [--seconds 2] [--smoke]

Marquee (Redis, feature_service, model_service with users near), an empty grpc.aio handler, and the peers of
benchmarks/peers run at once on generated data: 100,000 users, 4,000 movies. Each is asked in turn in every round, the
others wait; figures are medians over rounds. 64 questions are under way over 16 connections (HTTP/1.1: 64), asked by
h2load; each connection asks about its own user, drawn by Zipf's law with exponent 1. Before and after, every server's
answers are compared with ours, number by number. CPU is user and system time of all processes of a server; those of
Marquee are counted with its feature_service and Redis. Then all are asked at 200 questions a second, whether they have
answered or not, and what the 50th percentile says is the time of an answer.

The peers hold all users in memory and read nothing from anywhere: they are spared the store and its changes. Users go
through the tower with every batch, as they do where nobody built what keeps them; with --embedded the peers embedded
everybody before the first question. --smoke asks few small questions, wants no peer's environment, writes nothing.
"""

import argparse
import asyncio
import os
import sys
import time
from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.asked import STEADY_PER_S, Asked, by_h2load, measure_in_turn
from benchmarks.h2load import CONNECTIONS, Target
from benchmarks.peers import asking
from benchmarks.peers.starting import PEERS, PYTHON, Running
from benchmarks.peers.stored_users import write_for_peers
from benchmarks.prepared import FULL, MODELS, SMOKE, Prepared, prepare
from benchmarks.process_usage import cpu_with_children_s, pss_with_children_bytes
from benchmarks.record import record
from benchmarks.serving_cost import ask_through_client, empty_server, model_service, zipf_ranks

TOLERANCE = 1e-3
"""Of stars and scores: a batch may round otherwise than a row alone, by 1e-5 of a score."""
KINDS = {"rate": "PredictRating", "top": "TopK of 10"}
EMPTY, MARQUEE, COALESCED = "empty handler", "Marquee", "Marquee, coalescing client"
GOALS = (
    ("LitServe", 5.0),
    ("Triton", 2.2),
    ("grpcio, threads", 1.5),
    ("grpcio, asyncio", 1.5),
)
"""At least so many times Marquee's CPU a unary PredictRating."""
_WIDTH = 130
CLIENT_GOAL, STEADY_GOAL = 5.0, 2.0
"""Times more answers through the client than Mosec's; at most so many times the empty handler's median latency."""


def questions_about(prepared: Prepared) -> dict[str, list[dict[str, Any]]]:
    """Returns 16 questions of each kind, about different users."""
    rng = np.random.default_rng(11)
    users, movies = prepared.users, prepared.data.movies.movie_ids
    ranks = list(dict.fromkeys(zipf_ranks(rng, len(users), 50 * CONNECTIONS)))[:CONNECTIONS]
    wanted = [movies[row] for row in rng.integers(0, len(movies), CONNECTIONS)]
    return {
        "rate": [{"user_id": users[rank], "movie_id": movie} for rank, movie in zip(ranks, wanted, strict=True)],
        "top": [{"user_id": users[rank], "k": 10} for rank in ranks],
    }


class Comparison:
    """The servers under comparison, their questions and what was measured."""

    def __init__(self, prepared: Prepared, running: ExitStack) -> None:
        self.questions = questions_about(prepared)
        self.cases: list[Asked] = []
        self.not_run: dict[str, str] = {}
        self.configured: dict[str, str] = {}
        self.pss_mib: dict[str, float] = {}
        self.idle_ms_per_s: dict[str, float] = {}
        self._pids: dict[str, Mapping[str, int]] = {}
        self._servers: dict[str, Running] = {}
        self._client_per_s = 2000.0
        self._prepared = prepared
        self._running = running
        self._ours: dict[str, list[dict[str, Any]]] = {}

    def start(self, *, with_environment: bool) -> None:
        """Starts all, in turn, and compares their answers with ours."""
        self._start_ours()
        folder = write_for_peers(self._prepared)
        for peer in PEERS:
            if not peer.name.startswith("grpcio"):
                if not with_environment:
                    continue
                if not PYTHON.exists():
                    raise SystemExit(f"{peer.name} has no environment: make peers")
            log = self._prepared.folder / "logs" / f"{peer.name.replace(', ', '-')}.log"
            try:
                server = self._running.enter_context(peer.start(folder, log))
            except RuntimeError as error:
                self.not_run[peer.name] = str(error)
                continue
            self.configured[peer.name] = peer.configured
            self._add(peer.name, server, {"server": server.pid})

    def _start_ours(self) -> None:
        stack, store_pid = self._running.enter_context(self._prepared.stack())
        empty = self._running.enter_context(empty_server())
        served = self._running.enter_context(model_service(stack, "near", 1 << 30))
        address = served.address
        ours = Running(served.pid, "grpc", address, asking.OUR_PATHS, asking.as_ours, asking.over_grpc(address))
        pids = {"model_service": served.pid, "store": store_pid}
        self._add(MARQUEE, ours, pids)
        nothing = Target("grpc", empty.address, asking.OUR_PATHS["rate"], asking.as_ours(self.questions["rate"]))
        self.cases.insert(0, by_h2load(EMPTY, "rate", {"server": empty.pid}, nothing))
        self._pids[EMPTY] = {"server": empty.pid}
        users = [each["user_id"] for each in self.questions["rate"]]
        movies = [each["movie_id"] for each in self.questions["rate"]]

        def through_client(num_requests: int) -> tuple[int, float, Any]:
            answered = asyncio.run(
                ask_through_client(address, users, movies, max(0.3, num_requests / self._client_per_s))
            )
            self._client_per_s = answered.count / answered.elapsed_s
            return answered.count, self._client_per_s, answered.latencies_ms

        self.cases.append(Asked(COALESCED, "rate", pids, through_client))

    def _add(self, name: str, server: Running, pids: Mapping[str, int]) -> None:
        self._servers[name], self._pids[name] = server, pids
        self.check(name)
        for kind, questions in self.questions.items():
            shortest = 4 if server.transport == "grpc" else 10
            target = Target(server.transport, server.address, server.paths[kind], server.bodies(questions), shortest)
            self.cases.append(by_h2load(name, kind, pids, target))

    def check(self, name: str) -> None:
        """Compares a server's answers, 128 of each kind asked 16 at a time, with Marquee's.

        Raises:
            SystemExit: They differ; says where.
        """
        for kind, questions in self.questions.items():
            answers = self._servers[name].ask(questions * 8)
            ours = self._ours.setdefault(kind, answers[: len(questions)])
            if found := asking.differences(ours * 8, answers, TOLERANCE):
                raise SystemExit(f"{name} answers otherwise: {'; '.join(found[:5])}")

    def measure(self, rounds: int, seconds: float) -> None:
        """Asks all in turn, and looks at what they use when nobody asks."""
        measure_in_turn(self.cases, rounds, seconds)
        before = {name: sum(map(cpu_with_children_s, pids.values())) for name, pids in self._pids.items()}
        time.sleep(max(1.0, seconds))
        for name, pids in self._pids.items():
            used_s = sum(map(cpu_with_children_s, pids.values())) - before[name]
            self.idle_ms_per_s[name] = round(used_s * 1000 / max(1.0, seconds), 1)
            self.pss_mib[name] = round(sum(map(pss_with_children_bytes, pids.values())) / (1 << 20))
        for name in self._servers:
            self.check(name)

    def figures(self) -> dict[str, Any]:
        """Returns all, by server and kind of question."""
        servers: dict[str, Any] = {}
        for case in self.cases:
            told = servers.setdefault(case.server, {"configured": self.configured.get(case.server, "")})
            told[KINDS[case.kind]] = case.figures()
        for name, told in servers.items():
            told["pss_mib"] = self.pss_mib.get(name)
            told["idle_cpu_ms_per_s"] = self.idle_ms_per_s.get(name)
        return {"servers": servers, "not_run": self.not_run, "goals": goals(servers)}


def goals(servers: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Returns what was aimed at and what was found."""
    rate = KINDS["rate"]
    cpu = {name: told[rate]["cpu_us"] for name, told in servers.items()}
    found = [
        {"what": f"CPU of {name}, times Marquee's", "at_least": least, "found": round(cpu[name] / cpu[MARQUEE], 2)}
        for name, least in GOALS
        if name in cpu
    ]
    if "Mosec" in cpu:
        ratio = round(cpu["Mosec"] / cpu[COALESCED], 2)
        found.append(
            {"what": "answers a CPU second through the client, times Mosec's", "at_least": CLIENT_GOAL, "found": ratio}
        )
    p50 = {name: told[rate].get("steady_p50_ms") for name, told in servers.items()}
    ratio = round(p50[MARQUEE] / p50[EMPTY], 2)
    what = f"p50 at {STEADY_PER_S:.0f} a second, times the empty handler's"
    return [*found, {"what": what, "at_most": STEADY_GOAL, "found": ratio}]


def show(figures: Mapping[str, Any]) -> None:
    """Prints the table."""
    table = Table("", "", "CPU µs", "per s", "p50 ms", "p99 ms", "p50 at 200/s", "Pss MiB", "idle ms/s")
    for name, told in figures["servers"].items():
        for kind in KINDS.values():
            if kind in told:
                row = told[kind]
                keys = ("cpu_us", "per_s", "p50_ms", "p99_ms", "steady_p50_ms")
                cells = [f"{row[key]:,.4g}" if key in row else "" for key in keys]
                memory = [str(told["pss_mib"] or ""), str(told["idle_cpu_ms_per_s"] or "")]
                table.add_row(name, kind, *cells, *memory)
    console = Console(width=_WIDTH)
    console.print(table)
    for name, reason in figures["not_run"].items():
        console.print(f"{name} was not run: {reason}")
    for goal in figures["goals"]:
        bound = f"at least {goal['at_least']}" if "at_least" in goal else f"at most {goal['at_most']}"
        console.print(f"{goal['what']}: {goal['found']} (aim: {bound})")


def main() -> None:
    """Measures, prints and records."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=MODELS, default=MODELS[0])
    parser.add_argument("--embedded", action="store_true", help="peers embed all users before the first question")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0, help="of each case in each round")
    parser.add_argument("--smoke", action="store_true", help="small, and only what needs no environment of its own")
    given = parser.parse_args()
    if given.embedded:
        os.environ["PEERS_EMBEDDED"] = "1"
    prepared = prepare(given.model, SMOKE if given.smoke else FULL)
    with ExitStack() as running:
        comparison = Comparison(prepared, running)
        comparison.start(with_environment=not given.smoke)
        comparison.measure(1 if given.smoke else given.rounds, 0.3 if given.smoke else given.seconds)
        figures = comparison.figures()
    show(figures)
    if not given.smoke:
        name = f"beside_peers_{given.model}{'_embedded' if given.embedded else ''}"
        print(f"written to {record(name, figures).name}")
    if comparison.not_run and not given.smoke:
        sys.exit(1)


if __name__ == "__main__":
    main()
