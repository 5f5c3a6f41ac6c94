"""Writes down what the peers serve: a checkpoint, its catalogue, and all users as stored. Knows no server."""

import json
import shutil
from pathlib import Path

import numpy as np

from benchmarks.peers.answering import CHECKPOINT, MOVIES, USERS
from benchmarks.prepared import Prepared
from trainer.histories import HistoryLayout
from two_tower.checkpoint import read_manifest


def write_for_peers(prepared: Prepared) -> Path:
    """Returns the folder that `Answering` reads, with what is published of all users."""
    folder = prepared.folder / "peers"
    shutil.rmtree(folder, ignore_errors=True)
    (folder / CHECKPOINT).mkdir(parents=True)
    (folder / CHECKPOINT / prepared.checkpoint.name).symlink_to(prepared.checkpoint.resolve())
    data, movies = prepared.data, prepared.data.movies
    columns = {
        "movie_id": list(movies.movie_ids),
        "title": list(movies.titles),
        "year": movies.years.tolist(),
        "genres": [list(genres) for genres in movies.genres],
        **{name: [list(values) for values in bag] for name, bag in movies.bags.items()},
    }
    (folder / MOVIES).write_text(json.dumps(columns))
    layout = HistoryLayout(prepared.rows, len(data.user_ids), read_manifest(prepared.checkpoint).history_window)
    everybody = np.arange(len(data.user_ids))
    owners, seen = layout.seen(everybody)
    stored, profiles = layout.stored(everybody), data.profiles
    np.savez(
        folder / USERS,
        user_ids=np.array(data.user_ids),
        genders=np.array([each or "" for each in profiles.genders]),
        ages=profiles.ages,
        occupations=np.array([each or "" for each in profiles.occupations]),
        offsets=stored.offsets,
        movie_numbers=stored.movie_numbers,
        ratings=stored.ratings,
        event_times_ms=stored.event_times_ms,
        complete=stored.complete,
        seen_starts=np.searchsorted(owners, np.arange(len(everybody) + 1)),
        seen=seen.astype(np.int64),
    )
    return folder
