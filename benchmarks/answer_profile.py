"""Where does the processor time of an answer go? A sampling profiler looks at a loaded server from outside.

    python benchmarks/answer_profile.py [--model two-tower-history] [--seconds 10] [--rounds 3]

Redis, feature_service and model_service run on the data of serving_cost.py, with everybody near; 64 calls are under way
over 16 connections. Rounds without the profiler tell what an answer costs, in the thread of the event loop and in
gRPC's own threads, and so for the empty handler; then py-spy takes the stack of the loop's thread 200 times a second,
and each of our layers gets the time in which the loop was at it, less the share in which it was ready but had no core:
callers and profiler run on the same ones. What the loop costs beyond that is of gRPC, asyncio and sockets. py-spy must
be allowed to look at other processes: as root, or where kernel.yama.ptrace_scope is 0.
"""

import argparse
import statistics
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.prepared import FULL, MODELS, SMOKE, prepare
from benchmarks.process_usage import cpu_s, main_thread_cpu_s, main_thread_scheduled_ns
from benchmarks.record import record
from benchmarks.rpc_load import Caller, Load
from benchmarks.serving_cost import (
    RATE,
    TOP_K,
    Serving,
    draw,
    empty_server,
    list_requests,
    model_service,
    rating_requests,
)
from benchmarks.stack_layers import GRPC, LAYERS, shares

_PER_S = 200
_IN_FLIGHT, _CONNECTIONS = 64, 16
_NEAR_BYTES = 1 << 30
_SEED = 11
EMPTY, THREADS = "empty handler", "gRPC's own threads"


def costs(caller: Caller, server: Serving, load: Load) -> tuple[float, float]:
    """Returns the processor time of an answer in µs: in the thread of the event loop, and in all others."""
    all_s, loop_s = cpu_s(server.pid), main_thread_cpu_s(server.pid)
    answered = caller.call(load)
    loop_s = main_thread_cpu_s(server.pid) - loop_s
    all_s = cpu_s(server.pid) - all_s
    return loop_s * 1e6 / answered.count, (all_s - loop_s) * 1e6 / answered.count


def layers_us(caller: Caller, server: Serving, load: Load) -> dict[str, float]:
    """Returns for how many µs an answer the loop was at each layer of ours, while py-spy looked."""
    with tempfile.TemporaryDirectory(prefix="marquee-stacks-") as folder:
        written = Path(folder) / "stacks"
        program = Path(sysconfig.get_path("scripts")) / "py-spy"
        command = ["record", "--pid", server.pid, "--rate", _PER_S, "--threads", "--idle", "--format", "raw"]
        command += ["--output", written, "--duration", max(1, round(load.seconds) - 1)]
        with subprocess.Popen([str(program), *map(str, command)], stderr=subprocess.PIPE) as profiler:
            before = np.array(main_thread_scheduled_ns(server.pid))
            answered = caller.call(load)
            ran_ns, waited_ns = (main_thread_scheduled_ns(server.pid) - before).tolist()
            _, complaints = profiler.communicate(timeout=60)
        if profiler.returncode:
            sys.exit(f"py-spy cannot look at the server: {complaints.decode(errors='replace')}")
        found = shares(written.read_text(encoding="utf-8"))
    at_work_s = answered.elapsed_s * ran_ns / (ran_ns + waited_ns)
    return {name: found[name] * at_work_s * 1e6 / answered.count for name in LAYERS if name != GRPC}


def profile(caller: Caller, server: Serving, load: Load, rounds: int, *, layers: bool) -> dict[str, float]:
    """Returns µs of an answer by layer; of a server that has none of ours all of the loop is gRPC's."""
    caller.call(load)
    measured = [costs(caller, server, load) for _ in range(rounds)]
    loop_us, threads_us = (statistics.median(column) for column in zip(*measured, strict=True))
    ours = layers_us(caller, server, load) if layers else dict.fromkeys(LAYERS, 0.0)
    told = {THREADS: threads_us, **ours, GRPC: loop_us - sum(ours.values())}
    return {name: round(told[name], 1) for name in (THREADS, *LAYERS)}


def show(figures: Mapping[str, Mapping[str, float]]) -> None:
    """Prints what the layers take."""
    table = Table("µs", *figures)
    for name in next(iter(figures.values())):
        table.add_row(name, *(f"{told[name]:g}" for told in figures.values()))
    table.add_row("together", *(f"{sum(told.values()):.0f}" for told in figures.values()))
    Console().print(table)


def main() -> None:
    """Measures, prints and records."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=MODELS[0], choices=MODELS)
    parser.add_argument("--seconds", type=float, default=10.0, help="of each round")
    parser.add_argument("--rounds", type=int, default=3, help="without the profiler")
    parser.add_argument("--smoke", action="store_true", help="on little data")
    given = parser.parse_args()
    prepared = prepare(given.model, SMOKE if given.smoke else FULL)
    with ExitStack() as running:
        stack, _ = running.enter_context(prepared.stack())
        empty = running.enter_context(empty_server())
        service = running.enter_context(model_service(stack, "profiled", _NEAR_BYTES))
        caller = running.enter_context(Caller())
        drawn, wanted = draw(np.random.default_rng(_SEED), prepared.users, prepared.data.movies.movie_ids)
        asked = {RATE: rating_requests(drawn, wanted), TOP_K: list_requests(drawn)}

        def load(server: Serving, method: str) -> Load:
            return Load(server.address, method, asked[method], _IN_FLIGHT, _CONNECTIONS, given.seconds)

        figures = {EMPTY: profile(caller, empty, load(empty, RATE), given.rounds, layers=False)}
        for method in asked:
            name = method.rpartition("/")[2]
            figures[name] = profile(caller, service, load(service, method), given.rounds, layers=True)
    show(figures)
    print(f"written to {record(f'answer_profile_{given.model}', figures).name}")


if __name__ == "__main__":
    main()
