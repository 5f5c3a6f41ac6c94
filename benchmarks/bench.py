"""Runs the benchmarks of serving, one after the other: all of them in under 20 minutes, or whether they work in two.

    python benchmarks/bench.py [--smoke]

The first run trains the models; they lie in .run/bench for the next. Each step writes its figures to
benchmarks/results; then docs/performance.md is written again. With --smoke all are asked little, on small data, and
write their figures aside: what counts is that each command works and answers are right.
"""

import argparse
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from benchmarks.prepared import FOLDER, MODELS

HERE = Path(__file__).parent
_SHORT = ("--rounds", "3", "--seconds", "1.5")


@dataclass(frozen=True, slots=True)
class Step:
    """One command.

    Attributes:
        program: File in this folder.
        arguments: What it is told.
        smoke: What it is told instead if all that counts is whether it works; None leaves it out.
    """

    program: str
    arguments: tuple[str, ...] = ()
    smoke: tuple[str, ...] | None = None


STEPS = (
    Step("serving_cost.py", ("--model", MODELS[0], *_SHORT), ("--model", MODELS[0], "--smoke")),
    Step("serving_cost.py", ("--model", MODELS[1], *_SHORT)),
    Step("serving_paths.py", ("--model", MODELS[0])),
    Step("serving_paths.py", ("--model", MODELS[1]), ("--model", MODELS[1], "--smoke")),
    Step("answer_profile.py", ("--seconds", "6"), ("--smoke", "--seconds", "1", "--rounds", "1")),
    *(Step("overload.py", ("--model", model)) for model in MODELS),
    Step("topk_scaling.py"),
    Step("beside_peers.py", _SHORT, ("--smoke",)),
    Step("performance_page.py"),
    Step("readme_tables.py"),
)


def run(step: Step, *, smoke: bool) -> bool:
    """Runs a step, tells how long it took, and returns whether it worked."""
    arguments = step.smoke if smoke else step.arguments
    assert arguments is not None
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    if smoke:
        environment["BENCHMARK_RESULTS"] = str((FOLDER / "smoke-results").resolve())
    began = time.monotonic()
    print(f"\n{step.program} {' '.join(arguments)}", flush=True)
    status = subprocess.run([sys.executable, str(HERE / step.program), *arguments], env=environment, check=False)
    outcome = "done" if status.returncode == 0 else f"failed with status {status.returncode}"
    print(f"{step.program}: {outcome} after {time.monotonic() - began:.0f} s", flush=True)
    return status.returncode == 0


def main() -> None:
    """Runs all, and fails if one of them did."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--smoke", action="store_true", help="whether they work, in two minutes")
    given = parser.parse_args()
    steps = [step for step in STEPS if not given.smoke or step.smoke is not None]
    failed = [step.program for step in steps if not run(step, smoke=given.smoke)]
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
