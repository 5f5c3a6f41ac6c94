"""Does `marquee` still reach what is promised of it on real data? Exits with 1 if a floor is missed.

    python benchmarks/quality_floors.py [--jobs 2]

Several seeds draw several splits, or several orders of tied times. Answers are kept with those of
benchmarks/quality.py, so what one of the two has fitted the other does not fit again: with nothing there about forty
minutes of one core. Needs MARQUEE_DATA.
"""

import argparse
import math
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from rich.console import Console

from benchmarks.quality import ROOT, Part, Workshop
from benchmarks.record import record

Measured = Literal["rmse", "ndcg"]


@dataclass(frozen=True, slots=True)
class Floor:
    """What is promised of the mean over some seeds.

    Attributes:
        data: Folder below MARQUEE_DATA.
        holdout: As `--holdout` takes it.
        seeds: How many, from 0.
        metric: Which figure.
        bound: The mean is at most this for errors, at least this for NDCG@10.
        max_wall_s: Each fit takes at most this on an idle machine; None if nothing is promised.
    """

    data: str
    holdout: str
    seeds: int
    metric: Measured
    bound: float
    max_wall_s: float | None = None

    def is_met(self, mean: float, slowest_s: float) -> bool:
        """Tells whether what was measured keeps the promise."""
        good = mean <= self.bound if self.metric == "rmse" else mean >= self.bound
        return good and (self.max_wall_s is None or slowest_s <= self.max_wall_s)


FLOORS = (
    Floor("ml-1m-untimed", "random:0.1", 3, "rmse", 0.820, 300.0),
    Floor("ml-100k", "u1.test", 1, "rmse", 0.888),
    Floor("ml-latest-small", "random:0.1", 1, "rmse", 0.810),
    Floor("ml-100k", "leave-last", 5, "ndcg", 0.120),
    Floor("ml-latest-small", "leave-last", 5, "ndcg", 0.068),
)


def measure(workshop: Workshop, floor: Floor) -> dict[str, Any]:
    """Fits once a seed, where that was not done before, and returns the figures."""
    name = f"floor {floor.data} {floor.holdout}"
    found = workshop.compare(Part(name, floor.data, floor.holdout, tuple(range(floor.seeds)), "marquee", False))
    if found.failures:
        sys.exit(f"{name}: {found.failures[0].reason}")
    (row,) = found.rows
    # The processor seconds of a fit: its wall seconds on a machine that does nothing else.
    slowest_s = max(cell.costs.cpu_s for cell in found.cells)
    mean = row.figures[floor.metric]
    return {
        "data": floor.data,
        "holdout": floor.holdout,
        "metric": floor.metric,
        "mean": round(mean, 5),
        "bound": floor.bound,
        "seeds": floor.seeds,
        "deviation": None if math.isnan(row.spread[floor.metric]) else round(row.spread[floor.metric], 5),
        "cpu_s": [round(cell.costs.cpu_s, 1) for cell in found.cells],
        "max_wall_s": floor.max_wall_s,
        "met": floor.is_met(mean, slowest_s),
    }


def main() -> int:
    """Measures every floor, records and prints the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", type=int, default=2, help="fits at a time")
    arguments = parser.parse_args()
    if "MARQUEE_DATA" not in os.environ:
        sys.exit("MARQUEE_DATA must name a folder that holds ml-100k, ml-latest-small and ml-1m-untimed")
    os.chdir(ROOT)
    console = Console(highlight=False, soft_wrap=True)
    workshop = Workshop(Path(os.environ["MARQUEE_DATA"]), arguments.jobs, math.inf, False, console.print)
    rows = [measure(workshop, floor) for floor in FLOORS]
    console.print_json(data=rows)
    console.print(f"Written to {record('quality_floors', {'rows': rows})}")
    return 0 if all(row["met"] for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
