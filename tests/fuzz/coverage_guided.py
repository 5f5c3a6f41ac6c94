"""Fuzzes readers of bytes, guided by coverage: `python -m tests.fuzz.coverage_guided`. Exits 1 if it found something.

Each target runs in a process of its own, which libFuzzer ends at the first thing that it finds; then it begins again
with another seed while there is time, so that one finding does not hide the others.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

TARGETS = ("value_codec", "checkpoints", "data_readers")
# Beside the time that it is given: to import, to train, to end.
_GRACE_S = 300.0
_LAST_LINES = 30
_EXECUTED = re.compile(r"number_of_executed_units: +(\d+)")
_REACHED = re.compile(r"cov: (\d+)")


@dataclass(frozen=True)
class Run:
    """What one target came to.

    Attributes:
        inputs: Tried.
        places: Of the code that were reached.
        findings: The end of what libFuzzer said, with the traceback and where the input lies.
    """

    target: str
    inputs: int
    places: int
    findings: list[str]


def run(target: str, seconds: float, folder: Path, seed: int = 0, *, stop_at_finding: bool = False) -> Run:
    """Attacks with one target for a time; inputs that found something are left in the folder."""
    inputs, places, findings = 0, 0, []
    begun = time.monotonic()
    while (left_s := seconds - (time.monotonic() - begun)) >= 1 or inputs == 0:
        shutil.rmtree(folder / target, ignore_errors=True)
        (folder / target).mkdir(parents=True)
        options = [f"-max_total_time={max(1, round(left_s))}", *([f"-seed={seed}"] if seed else [])]
        done = subprocess.run(
            [sys.executable, "-m", "tests.fuzz.run_target", target, "--folder", str(folder / target), *options],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=left_s + _GRACE_S,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        executed, reached = _EXECUTED.search(done.stderr), _REACHED.findall(done.stderr)
        inputs += int(executed[1]) if executed else 0
        places = max([places, *map(int, reached)])
        if done.returncode == 0:
            break
        for artifact in (folder / target).glob("*-*"):
            shutil.copy(artifact, folder / f"{target}-{artifact.name}")
        # Python's traceback is in one of them, what libFuzzer makes of it in the other.
        ends = [*done.stderr.splitlines()[-_LAST_LINES:], *done.stdout.splitlines()[-_LAST_LINES:]]
        findings.append("\n".join(ends))
        if stop_at_finding or executed is None:
            break
        seed = seed and seed + 1
    return Run(target, inputs, places, findings)


def main(arguments: list[str]) -> int:
    """Runs all; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0, help="for each target")
    parser.add_argument("--seed", type=int, default=0, help="of the changes; 0 takes a new one each time")
    parser.add_argument("--only", choices=TARGETS, action="append", help="these targets alone")
    parser.add_argument("--keep", type=Path, help="folder for inputs that found something")
    given = parser.parse_args(arguments)
    runs = []
    with tempfile.TemporaryDirectory(prefix="marquee-fuzz-") as aside:
        for target in given.only or TARGETS:
            runs.append(run(target, 60 * given.minutes, given.keep or Path(aside), given.seed))
            print("\n".join(runs[-1].findings), flush=True)
    for each in runs:
        print(f"{each.target}: inputs tried: {each.inputs:,}, places reached: {each.places:,}, ", end="")
        print(f"crashes: {len(each.findings)}")
    return 1 if any(each.findings for each in runs) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
