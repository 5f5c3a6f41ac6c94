"""Keeps what was published as what the next rebuild goes on from. Knows rows and snapshots; publishes nothing."""

from dataclasses import replace
from datetime import UTC, datetime

import numpy as np

from trainer.dataset import Dataset, Interactions
from trainer.fits import Progress, silent
from trainer.rebuild.plan import DEFAULT_EXPORT_NAME, DEFAULT_KEEP
from trainer.rebuild.retention import prune_snapshots
from trainer.rebuild.store_reading import StoreReader
from trainer.rebuild.taking import Base, base_of_data, combined_movies, take, take_numbers
from trainer.store_snapshots.events import Events, merge
from trainer.store_snapshots.folder import About, Holdings, SnapshotFolder, read_holdings
from two_tower.registry import Registry
from two_tower.user_columns import Profiles


def keep_published(
    registry: Registry,
    reader: StoreReader,
    data: Dataset,
    rows: Interactions,
    *,
    resync: bool = False,
    export_name: str = DEFAULT_EXPORT_NAME,
    progress: Progress = silent,
) -> About:
    """Writes a snapshot of rows that the store holds now, and of what came before and since; the lock must be held.

    Args:
        registry: Where to.
        reader: The store.
        data: Users and movies.
        rows: What was published.
        resync: Whether the store is another one than before, and to be gone on with.
        export_name: Under what name the log is held back.
        progress: Told how far it is.

    Raises:
        UnconnectedError: The store's log does not go on where the newest snapshot ends, or began before it was kept.
        StoreError: The store cannot be read.
    """
    snapshots = SnapshotFolder(registry)
    base, newest = base_of_data(data, rows), snapshots.newest()
    if newest is not None:
        about = snapshots.about(newest)
        base = _together(Base(about, about.data_name, about.scale, read_holdings(snapshots.path_of(newest))), base)
    taken = take(reader, base, datetime.now(UTC), resync=resync, progress=progress)
    about = snapshots.write(taken.about, taken.holdings)
    reader.register(export_name, about.position)
    prune_snapshots(snapshots, DEFAULT_KEEP)
    return about


def _together(before: Base, published: Base) -> Base:
    """Returns what a snapshot and a publication come to; of profiles the published ones count."""
    old, new = before.holdings, published.holdings
    movies = combined_movies(old.movies, new.movies)
    number_of = {movie_id: number for number, movie_id in enumerate(movies.movie_ids)}
    user_ids = list(dict.fromkeys([*old.user_ids, *new.user_ids]))
    row_of = {user_id: row for row, user_id in enumerate(user_ids)}
    parts = [
        take_numbers(
            each.watched.as_events(),
            [row_of[user_id] for user_id in each.user_ids],
            [number_of[movie_id] for movie_id in each.movies.movie_ids],
        )
        for each in (old, new)
    ]
    # In the order of `user_ids`; who is in both stands where he stood, with the later entry.
    chosen = list(
        (
            {user_id: (old, row) for row, user_id in enumerate(old.user_ids)}
            | {user_id: (new, row) for row, user_id in enumerate(new.user_ids)}
        ).values()
    )
    holdings = Holdings(
        user_ids,
        Profiles(
            [each.profiles.genders[row] for each, row in chosen],
            np.array([each.profiles.ages[row] for each, row in chosen], np.float32),
            [each.profiles.occupations[row] for each, row in chosen],
        ),
        [each.zips[row] for each, row in chosen],
        movies,
        merge(Events.joined(parts)),
    )
    return replace(before, holdings=holdings, scale=before.scale or published.scale)
