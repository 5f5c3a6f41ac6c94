"""What users and movies take in model_service beside their vectors: names and movies as Python holds them.

    python benchmarks/python_objects.py

Memory by what the process grew by, time by what the processor worked. docs/scaling.md multiplies these.
"""

import gc
import json
import os
import time
from collections.abc import Callable
from typing import TypeVar

from rich.console import Console

from benchmarks.process_usage import pss_bytes
from benchmarks.record import record
from model_service.catalogue import Catalogue, CatalogueMovie

NUM_USERS = 1_000_000
NUM_MOVIES = 200_000
GENRES = ("Drama", "Comedy", "Action", "Horror", "War", "Crime")

T = TypeVar("T")


def measured(make: Callable[[], T], count: int) -> tuple[T, dict[str, float]]:
    """Returns what was made, and what one of `count` took of memory and time."""
    gc.collect()
    before, began_s = pss_bytes(os.getpid()), time.process_time()
    made = make()
    used_s = time.process_time() - began_s
    gc.collect()
    grown = pss_bytes(os.getpid()) - before
    return made, {"bytes": round(grown / count, 1), "cpu_us": round(1e6 * used_s / count, 3)}


def movie(number: int) -> CatalogueMovie:
    """Returns a movie with a title and two genres."""
    genres = (GENRES[number % 6], GENRES[number // 6 % 6])
    return CatalogueMovie(number, f"movie-{number}", f"The title of movie {number} (1990)", 1990, genres)


def main() -> None:
    """Measures, prints and records."""
    figures: dict[str, dict[str, float]] = {}
    empty = Catalogue.empty("c")
    catalogue, figures["catalogue, each movie"] = measured(
        lambda: empty.with_changes((movie(number) for number in range(NUM_MOVIES)), 1), NUM_MOVIES
    )
    changed = CatalogueMovie(5, "movie-5", "another title")
    _, figures["one movie changed, each movie of the catalogue"] = measured(
        lambda: catalogue.with_changes([changed], 2), NUM_MOVIES
    )
    _, figures["columns for a movie tower, each movie"] = measured(catalogue.columns, NUM_MOVIES)
    written = json.dumps({"users": [f"user-{number:09d}" for number in range(NUM_USERS)]}).encode()
    names, figures["names of users read, each user"] = measured(lambda: json.loads(written)["users"], NUM_USERS)
    _, figures["rows by name, each user"] = measured(
        lambda: {name: row for row, name in enumerate(names)},
        NUM_USERS,
    )
    Console().print(figures)
    print(f"written to {record('python_objects', figures).name}")


if __name__ == "__main__":
    main()
