"""What does a list of recommendations cost over 4 thousand, 100 thousand and a million movies?

Processor time of the best 10 and 100 movies for batches of 1, 16 and 64 users who have each seen 100 movies: exactly,
by the index that the service builds for large catalogues, and as a bare matrix product with `torch.topk` that knows
neither seen movies nor filters, in float32 and, up to 100,000 movies, in bfloat16; without a filter and with some that
let a part of the movies through, those of a few tastes or such as lie anywhere. Where the processor multiplies
bfloat16, exact search of more than a few users finds its candidates by it; there it is measured without that, too. One
thread; the ways take turns within a round, and the figure is the median of the rounds.

The vectors are made up: users and movies gather around a few thousand points, which gather around 64. So the recall is
told for them, and, if MARQUEE_DATA names a folder with ml-1m-untimed, for a checkpoint trained on it.
"""

import argparse
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from statistics import median
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console

from benchmarks.checkpoint_recall import recall_of_checkpoint
from benchmarks.record import record
from model_service.faiss_index import FaissIndex
from model_service.indexed_scorer import IndexedScorer
from model_service.settings import NUMPY_ROWS_ON_CPU
from two_tower.blockwise import BlockwiseScorer
from two_tower.permitted import Permitted
from two_tower.top_k import MovieMatrix, NumpyScorer, Ranked, Scorer

DIMENSIONS = 128
SIZES = (4_000, 100_000, 1_000_000)
BATCHES = (1, 16, 64)
KS = (10, 100)
SEEN = 100
TASTES = 64
FILTERS: Mapping[str, int | float] = {
    "": TASTES,
    ", half allowed": TASTES // 2,
    ", a tenth allowed": 6,
    ", a tenth allowed anywhere": 0.1,
    ", a fiftieth allowed": 1,
}
"""What a filter lets through: movies of so many tastes, or a share of them wherever they lie."""

USERS = 256
MIN_RECALL = 0.95
ROUND_S = 0.5
MAX_ROUNDS = 15
BF16_UP_TO = 100_000
"""Without a unit for it a product takes eight times as long, and says nothing new of a million movies."""
EXACT, EXACT_FP32, INDEX, BARE, BARE_BF16 = "exact", "exact fp32", "index", "bare fp32", "bare bf16"


@dataclass(frozen=True, slots=True, eq=False)
class World:
    """Movies and users that gather around tastes.

    Attributes:
        movies: What is ranked.
        tastes: Taste of each movie. [M]
        users: float32 [2 * USERS, D]
    """

    movies: MovieMatrix
    tastes: NDArray[np.int64]
    users: NDArray[np.float32]


def make_world(num_movies: int, rng: np.random.Generator) -> World:
    """Draws movies and users around the same points."""
    tastes = rng.standard_normal((TASTES, DIMENSIONS), np.float32)
    num_points = max(TASTES, num_movies // 250)
    taste_of_point = rng.integers(0, TASTES, num_points)
    points = tastes[taste_of_point] + 0.7 * rng.standard_normal((num_points, DIMENSIONS), np.float32)
    point_of_movie = rng.integers(0, num_points, num_movies)
    vectors = points[point_of_movie] + 0.7 * rng.standard_normal((num_movies, DIMENSIONS), np.float32)
    biases = 0.3 * rng.standard_normal(num_movies, np.float32)
    users = points[rng.integers(0, num_points, 2 * USERS)]
    users += 0.7 * rng.standard_normal(users.shape, np.float32)
    scale = np.float32(DIMENSIONS**-0.5)
    matrix = MovieMatrix.of(torch.from_numpy(vectors * scale), torch.from_numpy(biases)).for_ranking()
    return World(matrix, taste_of_point[point_of_movie], users * scale)


def permit_rows(world: World, rows: int, filtered: str, rng: np.random.Generator) -> Permitted:
    """Returns what each row may be answered: one mask, and what each has seen."""
    num_movies, through = len(world.tastes), FILTERS[filtered]
    anywhere = np.random.default_rng(2).random(num_movies)
    mask = world.tastes < through if isinstance(through, int) else anywhere < through
    seen = rng.integers(0, num_movies, rows * SEEN)
    return Permitted(mask[None], np.zeros(rows, np.int64), np.repeat(np.arange(rows, dtype=np.int64), SEEN), seen)


def cpu_ms(works: Mapping[str, Callable[[], Any]]) -> dict[str, float]:
    """Returns the processor time of each piece of work: the median of rounds in which they take turns."""
    for work in works.values():
        work()
    spent: dict[str, list[float]] = {name: [] for name in works}
    began = time.process_time()
    while len(spent[next(iter(works))]) < 3 or (
        time.process_time() - began < ROUND_S * len(works) and len(spent[next(iter(works))]) < MAX_ROUNDS
    ):
        for name, work in works.items():
            before = time.process_time()
            work()
            spent[name].append(time.process_time() - before)
    return {name: median(each) * 1000 for name, each in spent.items()}


def recall(found: Sequence[Ranked], truth: Sequence[Ranked]) -> float:
    """Returns the share of the true movies that were found."""
    shares = [
        len(np.intersect1d(each.numbers, true.numbers)) / max(1, len(true.numbers))
        for each, true in zip(found, truth, strict=True)
    ]
    return float(np.mean(shares))


def bare(users: torch.Tensor, vectors: torch.Tensor, k: int) -> torch.Tensor:
    """Does what cannot be left out."""
    best: torch.Tensor = (users @ vectors.T).topk(k, dim=-1).indices
    return best


def recalls(world: World, index: FaissIndex, filtered: str) -> dict[str, Any]:
    """Returns the recall over all users whom the index was not tuned on."""
    users, permitted = (
        torch.from_numpy(world.users[USERS:]),
        permit_rows(world, USERS, filtered, np.random.default_rng(1)),
    )
    figures = {}
    for k in KS:
        exact = BlockwiseScorer()
        indexed = IndexedScorer(index, world.movies, np.zeros(0, np.int64), exact)
        asked = (users, world.movies, [k] * USERS, permitted)
        share = recall(indexed.rank(*asked), exact.rank(*asked))
        figures[f"{named(world, k, filtered)}, recall"] = {
            "recall": round(share, 4),
            "share_ranked_exactly": round(indexed.num_exact / USERS, 3),
        }
    return figures


def named(world: World, k: int, filtered: str) -> str:
    """Says what was asked."""
    return f"{len(world.tastes)} movies, k {k}{filtered}"


def measure(world: World, index: FaissIndex, console: Console) -> dict[str, Any]:
    """Returns the figures of one catalogue."""
    narrow = world.movies.vectors.bfloat16() if len(world.tastes) <= BF16_UP_TO else None
    figures: dict[str, Any] = {}
    for filtered in FILTERS:
        figures.update(recalls(world, index, filtered))
        for rows in BATCHES:
            # The index is tuned on the first half of the users and asked by the second.
            users = torch.from_numpy(world.users[USERS : USERS + rows])
            permitted = permit_rows(world, rows, filtered, np.random.default_rng(rows))
            exact: Scorer = NumpyScorer() if rows <= NUMPY_ROWS_ON_CPU else BlockwiseScorer()
            indexed = IndexedScorer(index, world.movies, np.zeros(0, np.int64), exact)
            for k in KS:
                asked = (users, world.movies, [k] * rows, permitted)
                works: dict[str, Callable[[], Any]] = {
                    EXACT: partial(exact.rank, *asked),
                    INDEX: partial(indexed.rank, *asked),
                }
                if world.movies.narrow is not None and rows > NUMPY_ROWS_ON_CPU:
                    # What it would take on a processor without a unit for bfloat16.
                    works[EXACT_FP32] = partial(exact.rank, users, replace(world.movies, narrow=None), *asked[2:])
                if not filtered:
                    works[BARE] = partial(bare, users, world.movies.vectors, k)
                if not filtered and narrow is not None:
                    works[BARE_BF16] = partial(bare, users.bfloat16(), narrow, k)
                spent = {name: ms / rows for name, ms in cpu_ms(works).items()}
                told: dict[str, Any] = {f"{name}_ms_a_user": round(ms, 4) for name, ms in spent.items()}
                told["times_less_than_exact"] = round(spent[EXACT] / spent[INDEX], 1)
                if EXACT_FP32 in spent:
                    told["times_less_than_exact_fp32"] = round(spent[EXACT_FP32] / spent[INDEX], 1)
                for way, to in ((BARE, "exact_to_bare_fp32"), (BARE_BF16, "exact_to_bare_bf16")):
                    if way in spent:
                        told[to] = round(spent[EXACT] / spent[way], 2)
                name = f"{named(world, k, filtered)}, {rows} users"
                figures[name] = told
                console.print(name, told)
    return figures


def main() -> None:
    """Measures, prints and records."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--movies", type=int, action="append", help="sizes of catalogues; by default three")
    sizes = parser.parse_args().movies or SIZES
    torch.set_num_threads(1)
    console = Console(width=200)
    figures: dict[str, Any] = {"threads": 1, "dimensions": DIMENSIONS, "seen_per_user": SEEN, "vectors": "made up"}
    with torch.inference_mode():
        for num_movies in sizes:
            world = make_world(num_movies, np.random.default_rng(7))
            began = time.process_time()
            index = FaissIndex.build(world.movies, world.users[:USERS], MIN_RECALL, np.random.default_rng(0))
            figures[f"{num_movies} movies, index"] = {
                "build_cpu_s": round(time.process_time() - began, 1),
                "mib": round(index.size_bytes / 2**20, 1),
                "movies_mib": round(num_movies * (DIMENSIONS + 1) * 4 / 2**20, 1),
                "groups_scored_and_recall_by_depth": {
                    str(depth): [each.num_groups, each.num_scored, round(each.recall, 4)]
                    for depth, each in index.reaches.depths.items()
                },
                "coverage_scored_and_recall_by_share_allowed_and_depth": {
                    f"{share:g}, {depth}": [each.coverage, each.num_scored, round(each.recall, 4)]
                    for (share, depth), each in index.reaches.filtered.items()
                },
            }
            console.print(figures[f"{num_movies} movies, index"])
            figures.update(measure(world, index, console))
            del world, index
    if "MARQUEE_DATA" in os.environ:
        figures["ml-1m-untimed, marquee"] = recall_of_checkpoint(os.environ["MARQUEE_DATA"], MIN_RECALL)
        console.print(figures["ml-1m-untimed, marquee"])
    if tuple(sizes) == SIZES:
        console.print(f"written to {record('topk_scaling', figures).name}")


if __name__ == "__main__":
    main()
