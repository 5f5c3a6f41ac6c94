"""What memory does a `marquee` fit take on data of ML-25M's shape, and does it stay within what was planned?

    python benchmarks/marquee_memory.py [--data DIR] [--gib 16] [--set tower_epochs=1 ...]

Peak memory of each stage beside the plan of trainer/fits/marquee_memory.py. One epoch of each stage shows it, since all
of a stage's arrays are there at its first step; the figures of time are of so many epochs. DIR holds ratings, users and
movies in Parquet, as `trainer synthesize DIR --users 160000 --movies 60000 --ratings 25000000 --format parquet` makes
them; it is read without the readers, so that the fit's memory is what is seen.
"""

import argparse
import resource
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from benchmarks.record import record
from trainer.dataset import Dataset, Interactions
from trainer.fits import fit_function
from trainer.fits.marquee_memory import DataSize, fit_into, needed_bytes
from trainer.fits.options import parse_options
from two_tower.movie_columns import MovieColumns
from two_tower.serving import RatingScale
from two_tower.user_columns import Profiles

QUICK = ("tower_epochs=1", "machine_iterations=2", "ranking_epochs=1", "ranking_cuts=1")


def read(folder: Path) -> Dataset:
    """Reads a synthetic data set, whose ids are its rows from 1."""
    movies = pq.read_table(folder / "movies.parquet")
    num_users = pq.read_metadata(folder / "users.parquet").num_rows
    ratings = pq.read_table(folder / "ratings.parquet")
    users, movie_rows, stars, seconds = (column.to_numpy() for column in ratings.columns)
    genres = [tuple(text.split("|")) if text else () for text in movies["genres"].to_pylist()]
    years = np.asarray([float(title[-5:-1]) for title in movies["title"].to_pylist()], np.float32)
    return Dataset(
        name=folder.name,
        user_ids=[str(row + 1) for row in range(num_users)],
        profiles=Profiles.unknown(num_users),
        zips=[None] * num_users,
        movies=MovieColumns(
            [str(each) for each in movies["movieId"].to_pylist()], movies["title"].to_pylist(), years, genres
        ),
        interactions=Interactions(
            (users - 1).astype(np.int32), (movie_rows - 1).astype(np.int32), stars.astype(np.float32), seconds * 1000
        ),
        scale=RatingScale(0.5, 5.0, 0.5),
        has_times=True,
    )


def main() -> None:
    """Fits once and writes the figures down."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--gib", type=float, default=16.0)
    parser.add_argument("--set", nargs="*", default=QUICK, metavar="OPTION=VALUE")
    given = parser.parse_args()
    data = read(given.data)
    size = DataSize.of(data)
    made = fit_function("marquee")
    options, notes = fit_into(size, parse_options(made.options_class, given.set), int(given.gib * 2**30))
    peaks: dict[str, float] = {}
    started = time.process_time()

    def watch(done: int, total: int, message: str, figures: Mapping[str, float] | None = None) -> None:
        stage = message.partition(":")[0]
        peaks[stage] = _peak_gib()
        print(f"{time.process_time() - started:8.0f} s  {peaks[stage]:6.2f} GiB  {message}", flush=True)

    made.fit(data, options, seed=0, progress=watch)
    peaks["whole fit"] = _peak_gib()
    figures = {
        "data": asdict(size),
        "options": list(given.set),
        "given up": list(notes),
        "planned_gib": {name: round(each / 2**30, 2) for name, each in needed_bytes(size, options).items()},
        "peak_gib_until": {name: round(each, 2) for name, each in peaks.items()},
        "processor_s": round(time.process_time() - started),
    }
    print(record("marquee_memory", figures))


def _peak_gib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


if __name__ == "__main__":
    main()
