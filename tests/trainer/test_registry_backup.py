"""A registry is copied away and back, whole; what is damaged, or is another one, is named and left as it is."""

import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from tests.toy_dataset import toy_dataset
from tests.trainer.store_snapshots.toy_about import ABOUT
from trainer.rebuild.taking import base_of_data
from trainer.registry_backup import RegistryBackupError, copy_registry
from trainer.snapshot import Snapshot, hash_of_data
from trainer.store_snapshots.folder import SnapshotFolder
from trainer.training import Request, train
from two_tower import checkpoint as checkpoints
from two_tower.registry import Registry

DOCS = Path(__file__).parents[2] / "docs" / "operations.md"
Make = Callable[[str], str]


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    """An empty one."""
    return Registry(tmp_path / "registry")


@pytest.fixture
def backup(tmp_path: Path) -> Registry:
    """Where it is copied to."""
    return Registry(tmp_path / "backup")


@pytest.fixture
def make(registry: Registry) -> Make:
    """Trains a checkpoint that guesses, and gives it a label."""
    data = toy_dataset(num_users=20)

    def make(label: str) -> str:
        request = Request("random", "random:0.1", calibrated=False, reported=False)
        version = train(Snapshot(data, Path("toy"), hash_of_data(data), 0), registry, request).folder.name
        registry.set_label(label, version, now=datetime.now(UTC), reason="made")
        return version

    return make


def with_snapshot(registry: Registry) -> Path:
    data = toy_dataset(num_users=20)
    SnapshotFolder(registry).write(ABOUT, base_of_data(data, data.interactions).holdings)
    return SnapshotFolder(registry).path_of(ABOUT.name)


def content(registry: Registry) -> dict[str, bytes]:
    """Every file of a registry but locks."""
    return {
        str(path.relative_to(registry.path)): path.read_bytes()
        for path in sorted(registry.path.rglob("*"))
        if path.is_file() and path.suffix != ".lock"
    }


def documented(command: str, backup: Registry, registry: Registry) -> list[str]:
    """Returns the command of docs/operations.md that begins so, over other folders."""
    start = f"python -m trainer registry {command}"
    (line,) = [line for line in DOCS.read_text("utf-8").splitlines() if line.startswith(start)]
    named = {"backups/registry": str(backup.path), "registry": str(registry.path)}
    words = shlex.split(line, comments=True)
    return [sys.executable, *words[1:4], *(named.get(word, word) for word in words[4:])]


def test_a_registry_comes_back_as_it_was(registry: Registry, backup: Registry, make: Make) -> None:
    """Checkpoints, snapshots, labels with their history and the journal, by the documented commands."""
    first, second = make("stable"), make("stable")
    with_snapshot(registry)
    (registry.path / "rebuild.json").write_text("{}")
    before = content(registry)

    saved = subprocess.run(documented("backup", backup, registry), capture_output=True, text=True, check=False)
    shutil.rmtree(registry.path)
    back = subprocess.run(documented("restore", backup, registry), capture_output=True, text=True, check=False)

    assert (saved.returncode, back.returncode) == (0, 0), saved.stderr + back.stderr
    assert "3 copied, 0 there already; labels written: stable" in back.stdout
    assert content(registry) == content(backup) == before
    assert [change.version for change in registry.label_history("stable")][-2:] == [first, second]
    assert checkpoints.load(registry.path_of(second)).version == second


def test_a_second_backup_copies_what_is_new(registry: Registry, backup: Registry, make: Make) -> None:
    """A label that moved since moves there too."""
    make("stable")
    copy_registry(registry, backup, newer_wins=True)
    newer = make("stable")

    copied = copy_registry(registry, backup, newer_wins=True)

    assert (copied.num_new, copied.num_there, copied.labels, copied.failed) == (1, 1, ["stable"], [])
    assert backup.label("stable") == newer


def test_what_is_damaged_is_named_and_the_others_are_copied(registry: Registry, backup: Registry, make: Make) -> None:
    """A flipped bit of a checkpoint, and of a snapshot; the label of that checkpoint stays behind."""
    broken, sound = make("stable"), make("trial")
    weights = registry.path_of(broken) / checkpoints.WEIGHTS
    rows = with_snapshot(registry) / "watched.parquet"
    for path in (weights, rows):
        flipped = np.frombuffer(path.read_bytes(), np.uint8).copy()
        flipped[-1] ^= 1
        path.write_bytes(flipped.tobytes())

    copied = copy_registry(registry, backup, newer_wins=True)

    assert backup.versions() == [sound]
    assert backup.labels() == {"trial": sound}
    assert [failure.partition(":")[0] for failure in copied.failed] == [broken, ABOUT.name, "label stable"]
    assert SnapshotFolder(backup).names() == []


def test_a_restore_leaves_what_is_there(registry: Registry, backup: Registry, make: Make) -> None:
    """A label that has moved since the backup keeps to where it is."""
    make("stable")
    copy_registry(registry, backup, newer_wins=True)
    newer = make("stable")

    copied = copy_registry(backup, registry, newer_wins=False)

    assert (copied.num_new, copied.labels, copied.failed) == (0, [], [])
    assert registry.label("stable") == newer


def test_another_checkpoint_of_the_same_name_is_never_overwritten(
    registry: Registry, backup: Registry, make: Make
) -> None:
    """Two registries that went different ways are told apart, and both stay."""
    version = make("stable")
    copy_registry(registry, backup, newer_wins=True)
    beside = backup.path_of(version) / checkpoints.MANIFEST
    beside.write_bytes(beside.read_bytes() + b" ")
    before = content(backup)

    copied = copy_registry(registry, backup, newer_wins=True)

    assert "holds something else of that name" in copied.failed[0]
    assert content(backup) == before


def test_an_empty_folder_is_no_backup(registry: Registry, backup: Registry) -> None:
    """A misspelt folder is an error, not an empty success."""
    with pytest.raises(RegistryBackupError, match="holds no checkpoint"):
        copy_registry(registry, backup, newer_wins=False)
    assert not backup.path.exists()
