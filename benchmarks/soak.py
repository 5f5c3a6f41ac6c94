"""Does anything go wrong or grow when model_service is asked for half an hour at 70% of what it can do?

    python benchmarks/soak.py [--model two-tower-history] [--minutes 30]

Redis, feature_service and model_service run on generated data of 100,000 users. What the service can do is measured at
the start, by 64 callers who wait for their answers; then it is asked at 70% of that, whether it has answered or not,
for ratings and lists in turn, ten seconds each. After each turn the memory of the services is read: Pss, and of it the
part that is no file's. It fails if a question was not answered, or if memory of the second half grows: if the slope of
the line through it is above zero at 95% confidence (ordinary least squares, Student's t). Pages of files, of libraries
above all, are shared with whatever else runs their code, and count for more when that ends: run nothing beside it.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import track
from scipy import stats

from benchmarks.h2load import Target, closed_loop, steady
from benchmarks.path_questions import kinds_about
from benchmarks.prepared import FULL, MODELS, SMOKE, prepare
from benchmarks.process_usage import pss_with_children_bytes
from benchmarks.record import record
from benchmarks.serving_cost import model_service

SHARE_OF_CAPACITY = 0.7
TURN_S = 10.0
MIN_TURNS = 8
_BYTES_OF_NEAR = 256 << 20
_CALIBRATION_REQUESTS = 8192
_KINDS = ("PredictRating", "TopK")
_MEMORY = {"": "Pss", ", without files": "Pss_Anon"}
_CONFIDENCE = 0.95
_TOLD = 6
"""Turns that one figure of memory stands for, their median: a minute."""


def slope_of(times_s: Sequence[float], sizes_mib: Sequence[float]) -> tuple[float, float]:
    """Returns by how many MiB an hour something grows, and half the width of its 95% interval."""
    if min(sizes_mib) == max(sizes_mib):
        # SciPy divides by the spread, which is none.
        return 0.0, 0.0
    line = stats.linregress(times_s, sizes_mib)
    half_width = stats.t.ppf((1 + _CONFIDENCE) / 2, len(times_s) - 2) * line.stderr
    return float(line.slope * 3600), float(half_width * 3600)


def soak(model: str, minutes: float, *, small: bool) -> dict[str, Any]:
    """Returns what went wrong and how memory went."""
    prepared = prepare(model, SMOKE if small else FULL)
    with ExitStack() as running:
        stack, store_pid = running.enter_context(prepared.stack())
        server = running.enter_context(model_service(stack, "soak", _BYTES_OF_NEAR))
        targets = [
            Target("grpc", server.address, kind.method, [each.SerializeToString() for each in kind.requests], 10)
            for kind in kinds_about(prepared)
            if kind.name in _KINDS
        ]
        rates = [SHARE_OF_CAPACITY * closed_loop(target, _CALIBRATION_REQUESTS).per_s for target in targets]
        pids = {"model_service": server.pid, "feature_service and Redis": store_pid}
        turns = max(MIN_TURNS, round(minutes * 60 / TURN_S))
        turn_s = minutes * 60 / turns
        times_s: list[float] = []
        sizes_mib: dict[str, list[float]] = {name + part: [] for name in pids for part in _MEMORY}
        p99_ms: list[float] = []
        errors: list[str] = []
        answers = 0
        for turn in track(range(turns), "soaking", console=Console(stderr=True)):
            place = turn % len(targets)
            try:
                loaded = steady(targets[place], rates[place], turn_s)
            except RuntimeError as error:
                errors.append(str(error))
            else:
                answers += loaded.count
                p99_ms.append(loaded.percentile(99))
            times_s.append(time.monotonic())
            for name, pid in pids.items():
                for part, kind in _MEMORY.items():
                    sizes_mib[name + part].append(pss_with_children_bytes(pid, kind) / (1 << 20))
    half = turns // 2
    slopes = {name: slope_of(times_s[half:], sizes[half:]) for name, sizes in sizes_mib.items()}
    return {
        "minutes": minutes,
        "asked_per_s": dict(zip(_KINDS, (round(rate) for rate in rates), strict=True)),
        "answers": answers,
        "turns_with_errors": errors,
        "p99_ms": round(float(np.median(p99_ms)), 2) if p99_ms else None,
        "pss_mib": {
            name: [round(float(np.median(sizes[at : at + _TOLD])), 2) for at in range(0, turns, _TOLD)]
            for name, sizes in sizes_mib.items()
        },
        "mib_an_hour_in_second_half": {
            name: {"slope": round(slope, 3), "half_width_95": round(width, 3)}
            for name, (slope, width) in slopes.items()
        },
    }


def faults_of(figures: dict[str, Any]) -> list[str]:
    """Returns what is wrong with a soak."""
    found = [f"not answered: {error}" for error in figures["turns_with_errors"]]
    for name, growth in figures["mib_an_hour_in_second_half"].items():
        if growth["slope"] - growth["half_width_95"] > 0:
            found.append(f"{name} grows by {growth['slope']} ± {growth['half_width_95']} MiB an hour")
    return found


def main() -> None:
    """Soaks, prints, records, and fails if something went wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=MODELS, default=MODELS[0])
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--smoke", action="store_true", help="ten seconds on small data; writes nothing")
    given = parser.parse_args()
    figures = soak(given.model, 1 / 6 if given.smoke else given.minutes, small=given.smoke)
    Console().print_json(data=figures)
    if given.smoke:
        # Too short to tell growth from warming up.
        sys.exit("\n".join(figures["turns_with_errors"]) or 0)
    print(f"written to {record(f'soak_{given.model}', figures).name}")
    sys.exit("\n".join(faults_of(figures)) or 0)


if __name__ == "__main__":
    main()
