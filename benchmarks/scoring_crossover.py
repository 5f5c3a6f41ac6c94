"""Up to how many users of a batch is numpy cheaper than torch on a CPU?

Ranks the same made-up users by both scorers that the service chooses between, each user with 100 seen movies, over
catalogues of five sizes; by torch also with candidates by bfloat16 where the processor multiplies it. Processor time on
one thread (OMP_NUM_THREADS=1); they take turns, and the figure is the median of the rounds.
The default of MODEL_NUMPY_MAX_ROWS rests on the answer.
"""

from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from rich.console import Console

from benchmarks.record import record
from benchmarks.topk_scaling import cpu_ms, make_world, permit_rows
from two_tower.blockwise import BlockwiseScorer
from two_tower.top_k import NumpyScorer

CATALOGUES = (1_682, 3_706, 10_000, 62_423, 100_000)
ROWS = (1, 2, 4, 8, 12, 16, 24, 32, 64)
K = 10


def main() -> None:
    """Measures, prints and records."""
    console = Console()
    torch.set_num_threads(1)
    figures: dict[str, Any] = {"threads": 1, "k": K}
    with torch.inference_mode():
        for num_movies in CATALOGUES:
            world = make_world(num_movies, np.random.default_rng(0))
            for rows in ROWS:
                users = torch.from_numpy(world.users[:rows])
                permitted = permit_rows(world, rows, "", np.random.default_rng(rows))
                wide = replace(world.movies, narrow=None)
                rest = [K] * rows, permitted
                works = {
                    "numpy": partial(NumpyScorer().rank, users, wide, *rest),
                    "torch": partial(BlockwiseScorer().rank, users, wide, *rest),
                }
                if world.movies.narrow is not None:
                    works["torch by bfloat16"] = partial(BlockwiseScorer().rank, users, world.movies, *rest)
                spent = {f"{name}_ms": round(ms, 3) for name, ms in cpu_ms(works).items()}
                figures[f"{num_movies} movies, {rows} rows"] = spent
                console.print(f"{num_movies:>7} movies {rows:>3} rows", spent)
    console.print(f"written to {record('scoring_crossover', figures).name}")


if __name__ == "__main__":
    main()
