"""Puts users into Feast's online store: `python load.py FOLDER REDIS_PORT`. Runs in the environment of .venv-feast.

FOLDER holds `users.npz`, as benchmarks/feast_store.py writes it; registry and configuration of `feast serve` are left
there. One feature view has all that we know of a user, the layout in which Feast reads the least: a hash per user, its
fields the profile's four, three lists of the history, newest first, and one of all movies ever watched.
"""

import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
from feast import Entity, FeatureStore, FeatureView, Field, FileSource, ValueType
from feast.types import Array, Float32, Int32, Int64, String

USERS_A_WRITE = 1000
FIELDS = [
    Field(name="gender", dtype=String),
    Field(name="age", dtype=Int32),
    Field(name="occupation", dtype=String),
    Field(name="zip", dtype=String),
    Field(name="movies", dtype=Array(Int32)),
    Field(name="ratings", dtype=Array(Float32)),
    Field(name="times_ms", dtype=Array(Int64)),
    Field(name="watched", dtype=Array(Int32)),
]


def main(folder: Path, port: int) -> None:
    """Defines the view and writes all users."""
    (folder / "feature_store.yaml").write_text(
        "project: m\nprovider: local\nregistry: registry.db\nentity_key_serialization_version: 3\n"
        f'online_store: {{type: redis, connection_string: "127.0.0.1:{port}"}}\noffline_store: {{type: dask}}\n'
    )
    store = FeatureStore(repo_path=str(folder))
    user = Entity(name="user", join_keys=["user_id"], value_type=ValueType.STRING)
    # Nothing is ever read from it: what is served is written below.
    source = FileSource(path=str(folder / "no.parquet"), timestamp_field="written_at")
    view = FeatureView(name="u", entities=[user], schema=FIELDS, source=source, ttl=timedelta(0), online=True)
    store.apply([user, view])
    users = np.load(folder / "users.npz")
    written_at = datetime.now(UTC)
    for start in range(0, len(users["user_id"]), USERS_A_WRITE):
        block = slice(start, start + USERS_A_WRITE)
        columns = {name: list(users[name][block]) for name in users.files}
        frame = pd.DataFrame({**columns, "written_at": written_at})
        store.write_to_online_store("u", frame)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
