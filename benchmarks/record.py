"""Writes a benchmark's figures down with what is needed to judge them: command, machine, commit, date."""

import json
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

RESULTS = Path(os.environ.get("BENCHMARK_RESULTS") or Path(__file__).parent / "results")
"""Where figures go: elsewhere for a run that only tries whether a benchmark works."""


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def commit() -> str:
    """Returns the commit that was measured, marked if the working tree differs from it."""
    described = subprocess.run(
        ["git", "describe", "--always", "--dirty", "--abbrev=12"], capture_output=True, text=True, check=False
    )
    return described.stdout.strip() or "unknown"


def machine() -> str:
    """Returns what it was measured on."""
    return f"{os.cpu_count()} cores of {_processor()}, {platform.system()}, Python {platform.python_version()}"


def record(name: str, figures: Mapping[str, Any]) -> Path:
    """Writes `results/NAME.json` and returns its path; an older result of the same name is replaced."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    arguments = [Path(sys.argv[0]).name, *(_without_folders(argument) for argument in sys.argv[1:])]
    result = {
        "command": shlex.join(["python", f"benchmarks/{arguments[0]}", *arguments[1:]]),
        "commit": commit(),
        "date": datetime.now(UTC).date().isoformat(),
        "machine": machine(),
        "figures": figures,
    }
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps(result, indent=2) + "\n")
    return path


def _without_folders(argument: str) -> str:
    """Returns the last part of a path: where it lay is nobody's business."""
    return Path(argument).name if "/" in argument else argument
