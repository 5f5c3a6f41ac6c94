"""Does `marquee` still reach what is promised of it on real data? Runs the very commands that a user would run.

Each row is one `python -m trainer train`; several seeds draw several splits, or several orders of tied times. Exits
with 1 if a floor is missed. About ten minutes on two cores; needs MARQUEE_DATA.
"""

import os
import shutil
import statistics
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from rich.console import Console

from benchmarks.record import record
from deploy.local.trainer_commands import run_trainer
from two_tower.checkpoint import read_manifest
from two_tower.registry import Registry

FOLDER = Path(".run/quality_floors")


@dataclass(frozen=True, slots=True)
class Floor:
    """What is promised of the mean over some seeds.

    Attributes:
        data: Folder below MARQUEE_DATA.
        holdout: As `--holdout` takes it.
        seeds: How many, from 0.
        metric: Field of the manifest's metrics.
        bound: The mean is at most this for errors, at least this for NDCG; None if nothing is promised.
        max_wall_s: Each training takes at most this; None if nothing is promised.
    """

    data: str
    holdout: str
    seeds: int
    metric: Literal["rmse", "ndcg_at_10"]
    bound: float | None = None
    max_wall_s: float | None = None

    def is_met(self, mean: float, slowest_s: float) -> bool:
        """Tells whether what was measured keeps the promise."""
        good = self.bound is None or (mean <= self.bound if self.metric == "rmse" else mean >= self.bound)
        return good and (self.max_wall_s is None or slowest_s <= self.max_wall_s)


FLOORS = (
    Floor("ml-1m-untimed", "random:0.1", 3, "rmse", 0.825, 240.0),
    Floor("ml-100k", "leave-last", 5, "ndcg_at_10", 0.118),
    Floor("ml-100k", "u1.test", 1, "rmse"),
    Floor("ml-latest-small", "random:0.1", 1, "rmse"),
)


def measure(console: Console, data: Path, floor: Floor) -> dict[str, Any]:
    """Trains once a seed and returns the figures."""
    registry = Registry(FOLDER / f"{floor.data}-{floor.holdout.replace(':', '-')}")
    metrics: list[dict[str, float]] = []
    wall_s: list[float] = []
    for seed in range(floor.seeds):
        start_s = time.monotonic()
        run_trainer(
            console,
            *("train", "--model", "marquee", "--data", str(data / floor.data), "--registry", str(registry.path)),
            *("--holdout", floor.holdout, "--seed", str(seed)),
        )
        wall_s.append(round(time.monotonic() - start_s, 1))
        found = read_manifest(registry.path_of(registry.versions()[-1])).metrics
        metrics.append({name: round(getattr(found, name), 5) for name in ("rmse", "mae", "ndcg_at_10", "recall_at_10")})
    mean = statistics.mean(each[floor.metric] for each in metrics)
    return {
        "data": floor.data,
        "holdout": floor.holdout,
        "metric": floor.metric,
        "mean": round(mean, 5),
        "bound": floor.bound,
        "max_wall_s": floor.max_wall_s,
        "met": floor.is_met(mean, max(wall_s)),
        "by_seed": metrics,
        "wall_s": wall_s,
    }


def main() -> int:
    """Measures every floor, records and prints the figures."""
    if "MARQUEE_DATA" not in os.environ:
        sys.exit("MARQUEE_DATA must name a folder that holds ml-100k, ml-latest-small and ml-1m-untimed")
    console = Console()
    shutil.rmtree(FOLDER, ignore_errors=True)
    rows = [measure(console, Path(os.environ["MARQUEE_DATA"]), floor) for floor in FLOORS]
    console.print_json(data=rows)
    console.print(f"Written to {record('quality_floors', {'rows': rows})}")
    return 0 if all(row["met"] for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
