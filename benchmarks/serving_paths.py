"""What does an answer cost by the way it takes through the services, and how long does its caller wait?

    python benchmarks/serving_paths.py [--model two-tower-history] [--rounds 3] [--seconds 1] [--smoke]

Redis, feature_service, two model_services (users near, and none near: end to end) and an empty grpc.aio handler run on
generated data: 100,000 users, 4,000 movies. h2load has 64 questions under way over 16 connections, each about a user of
its own, drawn by Zipf's law with exponent 1; all are asked in turn in every round, and figures are medians over rounds.
Processor time is user and system time of all processes of a server, of a store with its Redis. Then the latency of some
at 200 questions a second, whether answered or not. Every kind's answers are checked before and after.

--smoke asks few small questions and writes nothing; it fails where an answer is wrong or costs a hundred empty calls.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import grpc
from google.protobuf.message import Message
from marquee.client.channel import open_sync_channel
from rich.console import Console
from rich.table import Table

from benchmarks.asked import Asked, by_h2load, measure_in_turn
from benchmarks.h2load import Target
from benchmarks.path_questions import Kind, differ, kinds_about
from benchmarks.prepared import FULL, MODELS, SMOKE, prepare
from benchmarks.process_usage import pss_with_children_bytes
from benchmarks.record import record
from benchmarks.serving_cost import Serving, empty_server, model_service

EMPTY, NEAR, STORE = "empty handler", "near", "from the store"
MAX_TIMES_EMPTY = 100.0
"""Of a smoke run: an answer that costs more is broken, whatever else the machine does."""
_WIDTH = 140
_BYTES_OF_NEAR = 1 << 30
_SHORTEST_ANSWER_BYTES = 10


def answers_of(server: Serving, kind: Kind) -> list[Any]:
    """Asks every question of a kind once.

    Raises:
        SystemExit: An answer is wrong; says to what.
    """
    answers = []
    with open_sync_channel(server.address) as channel:
        ask: grpc.UnaryUnaryMultiCallable[Message, Any] = channel.unary_unary(
            kind.method,
            request_serializer=type(kind.requests[0]).SerializeToString,
            response_deserializer=kind.answer.FromString,
        )
        for request in kind.requests:
            answer = ask(request, timeout=60)
            if not kind.is_right(request, answer):
                raise SystemExit(f"{kind.name}: a wrong answer to {request}: {answer}")
            answers.append(answer)
    return answers


def check(servers: Mapping[str, Serving], kinds: Sequence[Kind]) -> None:
    """Asks every question once, of both services where both are asked; their answers are the same.

    Raises:
        SystemExit: An answer is wrong; says to what.
    """
    for kind in kinds:
        near = answers_of(servers[NEAR], kind)
        if kind.from_store:
            for place, (one, another) in enumerate(zip(near, answers_of(servers[STORE], kind), strict=True)):
                if differ(one, another):
                    raise SystemExit(f"{kind.name}, question {place}: near says {one}, the store {another}")


def cases_of(servers: Mapping[str, Serving], kinds: Sequence[Kind], store_pid: int) -> list[Asked]:
    """Returns how all are asked."""
    bodies = [request.SerializeToString() for request in kinds[0].requests]
    empty = Target("grpc", servers[EMPTY].address, kinds[0].method, bodies, _SHORTEST_ANSWER_BYTES)
    cases = [by_h2load(EMPTY, "any", {"server": servers[EMPTY].pid}, empty)]
    for kind in kinds:
        bodies = [request.SerializeToString() for request in kind.requests]
        for name in (NEAR, STORE) if kind.from_store else (NEAR,):
            target = Target("grpc", servers[name].address, kind.method, bodies, _SHORTEST_ANSWER_BYTES)
            pids = {"model_service": servers[name].pid, "store": store_pid}
            case = by_h2load(name, kind.name, pids, target, is_steady=kind.is_steady)
            case.answers_per_call = kind.answers_per_call
            cases.append(case)
    return cases


def measure(model: str, rounds: int, seconds: float, *, small: bool) -> dict[str, Any]:
    """Returns the figures of all cases, by what is asked of whom."""
    prepared = prepare(model, SMOKE if small else FULL)
    with ExitStack() as running:
        stack, store_pid = running.enter_context(prepared.stack())
        servers = {
            EMPTY: running.enter_context(empty_server()),
            NEAR: running.enter_context(model_service(stack, "near", _BYTES_OF_NEAR)),
            STORE: running.enter_context(model_service(stack, "store", 0)),
        }
        kinds = kinds_about(prepared)
        check(servers, kinds)
        cases = cases_of(servers, kinds, store_pid)
        measure_in_turn(cases, rounds, seconds)
        check(servers, kinds)
        pids = {**{name: server.pid for name, server in servers.items()}, "feature_service and Redis": store_pid}
        pss_mib = {name: round(pss_with_children_bytes(pid) / (1 << 20)) for name, pid in pids.items()}
    empty_us = cases[0].figures()["cpu_us"]
    figures = {}
    for case in cases:
        told = case.figures()
        figures[f"{case.kind}, {case.server}"] = {**told, "times_empty": round(told["cpu_us"] / empty_us, 3)}
    users = {"users": len(prepared.data.user_ids), "movies": len(prepared.data.movies.movie_ids)}
    return {**users, "rounds": rounds, "pss_mib": pss_mib, "cases": figures}


def show(figures: Mapping[str, Any]) -> None:
    """Prints the table."""
    names = {
        "cpu_us": "CPU µs",
        "times_empty": "x empty",
        "per_s": "per s",
        "p50_ms": "p50 ms",
        "p99_ms": "p99",
        "p999_ms": "p99.9",
        "steady_p50_ms": "p50 at 200/s",
        "steady_p99_ms": "p99",
        "steady_p999_ms": "p99.9",
    }
    table = Table("", *names.values())
    for case, row in figures["cases"].items():
        table.add_row(case, *(f"{row[key]:,.4g}" if key in row else "" for key in names))
    console = Console(width=_WIDTH)
    console.print(table)
    console.print(f"Pss in MiB: {figures['pss_mib']}")


def main() -> None:
    """Measures, prints and records."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=MODELS, default=MODELS[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=1.0, help="of each case in each round")
    parser.add_argument("--smoke", action="store_true", help="small and short")
    given = parser.parse_args()
    if given.smoke:
        figures = measure(given.model, 1, 0.2, small=True)
    else:
        figures = measure(given.model, given.rounds, given.seconds, small=False)
    show(figures)
    if not given.smoke:
        print(f"written to {record(f'serving_paths_{given.model}', figures).name}")
    elif dear := {
        name: row["times_empty"] for name, row in figures["cases"].items() if row["times_empty"] > MAX_TIMES_EMPTY
    }:
        sys.exit(f"an answer costs more than {MAX_TIMES_EMPTY:.0f} empty calls: {dear}")


if __name__ == "__main__":
    main()
