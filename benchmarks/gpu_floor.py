"""How near is a list on a GPU to the time in which the movie matrix can be read?

A list cannot take less than the bytes of the movie matrix by the bandwidth of the memory, which is measured by copying
a tensor of the same size (a copy reads and writes, so it counts twice). Told is the ratio to that floor, for one batch
of users who have each seen 100 movies. Without a GPU nothing is measured and nothing is written.
"""

import time
from collections.abc import Callable
from functools import partial
from statistics import median
from typing import Any

import numpy as np
import torch
from rich.console import Console

from benchmarks.record import record
from two_tower.permitted import Permitted
from two_tower.top_k import MovieMatrix, TorchScorer

DIMENSIONS = 128
SIZES = (100_000, 1_000_000)
BATCHES = (1, 64)
KS = (10, 100)
SEEN = 100
ROUNDS = 30


def device_ms(work: Callable[[], Any]) -> float:
    """Returns the time until the device has done some work: the median of rounds, after three to warm up."""
    durations = []
    for _ in range(ROUNDS + 3):
        torch.cuda.synchronize()
        began = time.perf_counter()
        work()
        torch.cuda.synchronize()
        durations.append(time.perf_counter() - began)
    return median(durations[3:]) * 1000


def main() -> None:
    """Measures, prints and records."""
    console = Console()
    if not torch.cuda.is_available():
        console.print("torch finds no CUDA device on this machine: nothing is measured")
        return
    rng = np.random.default_rng(0)
    figures: dict[str, Any] = {"gpu": torch.cuda.get_device_name(), "dimensions": DIMENSIONS, "seen_per_user": SEEN}
    for num_movies in SIZES:
        vectors = torch.randn(num_movies, DIMENSIONS, device="cuda")
        movies = MovieMatrix.of(vectors, torch.randn(num_movies, device="cuda"))
        floor_ms = device_ms(partial(torch.empty_like(vectors).copy_, vectors)) / 2
        for rows in BATCHES:
            permitted = Permitted(
                np.ones((1, num_movies), np.bool_),
                np.zeros(rows, np.int64),
                np.repeat(np.arange(rows, dtype=np.int64), SEEN),
                rng.integers(0, num_movies, rows * SEEN),
            )
            users = torch.randn(rows, DIMENSIONS, device="cuda")
            for k in KS:
                took_ms = device_ms(partial(TorchScorer().rank, users, movies, [k] * rows, permitted))
                told = {"ms": round(took_ms, 3), "floor_ms": round(floor_ms, 3), "ratio": round(took_ms / floor_ms, 1)}
                figures[f"{num_movies} movies, {rows} users, k {k}"] = told
                console.print(f"{num_movies} movies, {rows} users, k {k}", told)
    console.print(f"written to {record('gpu_floor', figures).name}")


if __name__ == "__main__":
    main()
