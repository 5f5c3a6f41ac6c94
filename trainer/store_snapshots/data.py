"""Reads a snapshot as a data set, as every command takes one. Knows both forms; knows no store."""

from pathlib import Path

import numpy as np

from trainer.dataset import Dataset, Interactions
from trainer.store_snapshots.folder import About, Holdings, read_about, read_holdings


def read_snapshot_data(folder: Path) -> tuple[About, Dataset]:
    """Returns what a snapshot says of itself and what it holds.

    Raises:
        SnapshotError: It is damaged or of another format.
    """
    about = read_about(folder)
    return about, data_of(about, read_holdings(folder))


def data_of(about: About, holdings: Holdings) -> Dataset:
    """Returns a snapshot as a data set, in which a movie's row is its catalogue number."""
    watched = holdings.watched
    rows = Interactions(
        watched.newest.users.astype(np.int32),
        watched.newest.movies.astype(np.int32),
        watched.ratings if about.scale is not None else np.full(len(watched), np.nan, np.float32),
        watched.newest.times_ms,
    )
    return Dataset(
        name=about.data_name,
        user_ids=holdings.user_ids,
        profiles=holdings.profiles,
        zips=holdings.zips,
        movies=holdings.movies,
        interactions=rows,
        scale=about.scale,
        has_times=about.has_times,
    )
