"""A training that is killed leaves nothing half-written, and running it again works."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.toy_dataset import toy_dataset
from trainer.snapshot import Snapshot, hash_of_data
from trainer.training import Request, train
from two_tower import checkpoint as checkpoints
from two_tower.registry import Registry

ROOT = Path(__file__).parents[2]

KILLED = """
import os, signal, sys
from pathlib import Path
from tests.toy_dataset import toy_dataset
from trainer.snapshot import Snapshot, hash_of_data
from trainer.training import Request, train
from two_tower.registry import Registry

def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)

when, registry = sys.argv[1:]
data = toy_dataset()
snapshot = Snapshot(data, Path("toy"), hash_of_data(data), 0)
if when == "while it writes":
    # What is asked of the disk after the first file of a checkpoint is written and before it is seen.
    os.fsync = die
model, options = ("marquee", ["hidden_size=8", "tower_epochs=1"]) if when == "while it fits" else ("bias", [])
request = Request(model, options=options, reported=False, calibrated=False)
train(snapshot, Registry(registry), request, die if when == "while it fits" else lambda *_: None)
"""


@pytest.mark.parametrize("when", ["while it fits", "while it writes"])
def test_nothing_of_a_killed_training_is_seen(tmp_path: Path, when: str) -> None:
    """No version and no label; the next training is the first, and what was left aside is removed in time."""
    ran = subprocess.run(
        [sys.executable, "-c", KILLED, when, str(tmp_path)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        timeout=120,
        check=False,
    )
    registry = Registry(tmp_path)

    assert ran.returncode == -signal.SIGKILL
    assert registry.versions() == []
    assert registry.label() is None
    aside = list(tmp_path.glob(".*.partial-*"))
    assert len(aside) == (1 if when == "while it writes" else 0)

    for folder in aside:
        two_days_ago = time.time() - 2 * 24 * 3600
        os.utime(folder, (two_days_ago, two_days_ago))
    data = toy_dataset()
    request = Request("bias", reported=False, calibrated=False)
    outcome = train(Snapshot(data, Path("toy"), hash_of_data(data), 0), registry, request)
    assert registry.label() == outcome.manifest.version
    checkpoints.self_check(checkpoints.load(outcome.folder))
    assert not list(tmp_path.glob(".*.partial-*"))
