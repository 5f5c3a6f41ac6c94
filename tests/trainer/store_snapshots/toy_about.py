"""What a snapshot of the toy data set says of itself. Asserts nothing."""

from tests.toy_dataset import toy_dataset
from trainer.store_snapshots.folder import About

ABOUT = About(
    name="20260101-000000-000",
    data_name="toy",
    taken_at_ms=5,
    store_epoch="e",
    position="p",
    num_rows=0,
    num_users=0,
    num_movies=0,
    num_events=0,
    num_off_scale=0,
    num_deleted=0,
    forgotten_movies=("m39",),
    resynced=False,
    scale=toy_dataset().scale,
    has_times=True,
    sha256={},
)
