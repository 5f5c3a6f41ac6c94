"""What does training take? Processor seconds and memory of `trainer train` on synthetic data of several sizes.

    python benchmarks/training_cost.py [--models marquee ...] [--sizes 943x1682x100000 ...]

`inspect` estimates from these figures: what is printed last belongs into `COSTS` of trainer/inspection.py. One core,
so that they add up the same on any machine; several cores divide the time of the matrix products and little else.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.record import record
from trainer.synthesis import SynthesisPlan, write_synthetic

SIZES = ("943x1682x100000", "6040x3700x1000000", "20000x2000x400000")
MODELS = ("marquee", "two-tower", "two-tower-history")
TERMS = ("base", "per_million_ratings", "per_billion_cells")


def train_once(model: str, data: Path, registry: Path) -> tuple[float, float]:
    """Returns processor seconds and peak memory in MiB of one training."""
    command = [sys.executable, "-m", "trainer", "train", "--data", str(data), "--registry", str(registry)]
    child = subprocess.Popen(
        [*command, "--model", model, "--holdout", "random:0.1"],
        env={**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
    )
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise SystemExit(f"training {model} failed with status {child.returncode}")
    return usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def main() -> None:
    """Trains every model at every size and writes the figures down."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", nargs="+", default=SIZES, metavar="USERSxMOVIESxRATINGS")
    parser.add_argument("--models", nargs="+", default=MODELS)
    arguments = parser.parse_args()
    sizes = [tuple(int(figure) for figure in size.split("x")) for size in arguments.sizes]
    figures: dict[str, Any] = {model: [] for model in arguments.models}
    with tempfile.TemporaryDirectory() as folder:
        for users, movies, ratings in sizes:
            data = Path(folder) / f"{users}x{movies}x{ratings}"
            write_synthetic(SynthesisPlan(users, movies, ratings), data)
            for model in arguments.models:
                seconds, memory_mib = train_once(model, data, Path(folder) / "registry")
                row = {"users": users, "movies": movies, "ratings": ratings}
                figures[model].append({**row, "processor_s": round(seconds, 1), "memory_mib": round(memory_mib)})
                print(model, figures[model][-1], flush=True)
    if len(sizes) >= len(TERMS):
        for model in arguments.models:
            figures[f"{model}: non-negative fit"] = fit(figures[model])
    print(record("training_cost", figures))
    for model in arguments.models:
        fitted = figures.get(f"{model}: non-negative fit", {})
        print(f'    "{model}": Cost({", ".join(str(value) for terms in fitted.values() for value in terms.values())}),')


def fit(rows: list[dict[str, float]]) -> dict[str, dict[str, float]]:
    """Fits time and memory by non-negative least squares over a base, the ratings, and users x movies."""
    from scipy.optimize import nnls

    terms = np.asarray([[1, row["ratings"] / 1e6, row["users"] * row["movies"] / 1e9] for row in rows])
    return {
        measure: dict(
            zip(
                TERMS, (round(float(value), 1) for value in nnls(terms, [row[measure] for row in rows])[0]), strict=True
            )
        )
        for measure in ("processor_s", "memory_mib")
    }


if __name__ == "__main__":
    main()
