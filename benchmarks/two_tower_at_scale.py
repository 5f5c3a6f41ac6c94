"""Does `two-tower` train on data larger than memory? Peak memory and time of one epoch on 20 million synthetic ratings.

    python benchmarks/two_tower_at_scale.py [--ratings 20000000] [--users 138000] [--movies 27000] [--processes 1]

The data is of ML-20M's shape: Parquet, sorted by user, written a piece at a time. Users have tastes in eight kinds of
movies, so that there is something to be learned, and movies a popularity that falls as 1/rank.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.record import record

_KINDS = 8
_USERS_A_FILE = 10_000


def write_data(folder: Path, num_users: int, num_movies: int, num_ratings: int) -> int:
    """Writes the folder and returns how many ratings there are: about as many as asked for."""
    (folder / "interactions").mkdir(parents=True)
    rng = np.random.default_rng(0)
    kinds = rng.integers(0, _KINDS, num_movies)
    popularity = 1 / (np.arange(num_movies) + 20)
    rows = [f"{movie},Movie {movie} ({1950 + movie % 70}),Kind {kinds[movie]}" for movie in range(num_movies)]
    (folder / "movies.csv").write_text("\n".join(["movieId,title,genres", *rows]) + "\n")
    by_kind = [np.flatnonzero(kinds == kind) for kind in range(_KINDS)]
    shares = [np.cumsum(popularity[movies]) / popularity[movies].sum() for movies in by_kind]
    total = 0
    for first in range(0, num_users, _USERS_A_FILE):
        users = np.arange(first, min(first + _USERS_A_FILE, num_users))
        # Lengths are log-normal, as MovieLens' are about; what is drawn twice for a user is dropped.
        lengths = np.maximum(20, rng.lognormal(np.log(1.2 * num_ratings / num_users) - 0.5, 1.0, len(users))).astype(
            int
        )
        owners = np.repeat(users, np.minimum(lengths, num_movies // 4))
        tastes = rng.integers(0, _KINDS, num_users)[owners]
        chosen = np.where(rng.random(len(owners)) < 0.7, tastes, rng.integers(0, _KINDS, len(owners)))
        movies = np.empty(len(owners), np.int64)
        for kind in range(_KINDS):
            some = np.flatnonzero(chosen == kind)
            movies[some] = by_kind[kind][np.searchsorted(shares[kind], rng.random(len(some)))]
        stars = np.clip(np.round(3 + (kinds[movies] == tastes) + rng.normal(0, 0.9, len(owners))), 1, 5)
        _, once = np.unique(owners * num_movies + movies, return_index=True)
        owners, movies, stars = owners[once], movies[once], stars[once]
        times = 1_000_000_000 + rng.integers(0, 500_000_000, len(owners))
        order = np.lexsort((times, owners))
        columns = {"userId": owners[order], "movieId": movies[order], "rating": stars[order], "timestamp": times[order]}
        pq.write_table(pa.table(columns), folder / "interactions" / f"part-{first // _USERS_A_FILE:04}.parquet")
        total += len(owners)
    return total


def main() -> None:
    """Writes the data, trains once and writes the figures down."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, value in (("ratings", 20_000_000), ("users", 138_000), ("movies", 27_000), ("processes", 1)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--set", action="append", metavar="FIELD=VALUE", help="Default: epochs=1 cuts=4.")
    asked = parser.parse_args()
    options = asked.set or ["epochs=1", "cuts=4"]
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        count = write_data(folder / "data", asked.users, asked.movies, asked.ratings)
        size_mib = sum(file.stat().st_size for file in (folder / "data" / "interactions").iterdir()) / 2**20
        start = ["-m", "torch.distributed.run", "--nproc-per-node", str(asked.processes)] if asked.processes > 1 else []
        command = [sys.executable, *start, "-m", "trainer", "train", "--model", "two-tower", "--holdout", "random:0.1"]
        command += ["--data", str(folder / "data"), "--registry", str(folder / "registry")]
        command += [word for text in options for word in ("--set", text)]
        begun = time.monotonic()
        child = subprocess.Popen(
            command, env={**os.environ, "OMP_NUM_THREADS": "1", "MARQUEE_CACHE": str(folder / "cache")}
        )
        _, status, usage = os.wait4(child.pid, 0)
        if status:
            raise SystemExit(f"training failed with status {os.waitstatus_to_exitcode(status)}")
        figures = {
            "ratings": count,
            "users": asked.users,
            "movies": asked.movies,
            "processes": asked.processes,
            "options": options,
            "parquet_mib": round(size_mib),
            # Of one process, pages of mapped files included; of several, of the largest.
            "peak_memory_mib": round(usage.ru_maxrss / 1024),
            "processor_s": round(usage.ru_utime + usage.ru_stime),
            "wall_s": round(time.monotonic() - begun),
        }
        print(figures)
        print(record("two_tower_at_scale", figures))


if __name__ == "__main__":
    main()
