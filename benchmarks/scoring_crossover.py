"""Up to how many rows of a batch is numpy cheaper than torch on a CPU?

Ranks the same random users over catalogues of three sizes by both implementations of `two_tower.top_k`, each
with 100 seen movies a user. The default of MODEL_NUMPY_MAX_ROWS rests on the answer.
"""

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from rich.console import Console

from benchmarks.record import record
from model_service.catalogue import Catalogue, CatalogueMovie
from model_service.filters import MovieFilter, permit
from two_tower.top_k import MovieMatrix, NumpyScorer, TorchScorer

CATALOGUES = (1_682, 3_706, 62_423)
ROWS = (1, 2, 4, 8, 16, 32, 64, 128)
DIMENSIONS = 128
SEEN = 100
K = 10
REPEATS = 15


def fastest_ms(work: Callable[[], Any]) -> float:
    """Returns the least of some durations: what the machine's other tasks add is not asked."""
    durations = []
    for _ in range(REPEATS):
        began = time.perf_counter()
        work()
        durations.append(time.perf_counter() - began)
    return min(durations) * 1000


def main() -> None:
    """Measures, prints and records."""
    console = Console()
    rng = np.random.default_rng(0)
    figures: dict[str, dict[str, float]] = {}
    for num_movies in CATALOGUES:
        catalogue = Catalogue.empty("c").with_changes([CatalogueMovie(n, str(n)) for n in range(num_movies)], 1)
        movies = MovieMatrix.of(torch.randn(num_movies, DIMENSIONS), torch.randn(num_movies))
        for rows in ROWS:
            users = torch.randn(rows, DIMENSIONS)
            seen = [rng.choice(num_movies, SEEN, replace=False) for _ in range(rows)]
            permitted = permit([MovieFilter()] * rows, seen, catalogue)
            wanted = (users, movies, [K] * rows, permitted)
            numpy_ms = fastest_ms(partial(NumpyScorer().rank, *wanted))
            torch_ms = fastest_ms(partial(TorchScorer().rank, *wanted))
            figures[f"{num_movies} movies, {rows} rows"] = {
                "numpy_ms": round(numpy_ms, 3),
                "torch_ms": round(torch_ms, 3),
            }
            console.print(f"{num_movies:>6} movies {rows:>4} rows: numpy {numpy_ms:8.3f} ms, torch {torch_ms:8.3f} ms")
    console.print(f"written to {record('scoring_crossover', {'threads': torch.get_num_threads(), **figures}).name}")


if __name__ == "__main__":
    main()
