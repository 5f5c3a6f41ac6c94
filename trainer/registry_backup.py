"""Copies a registry, so that each side is a registry at every moment. Knows folders, hashes and labels; trains nothing.

A backup of a registry is a registry: it can be served from, and restoring it is copying it back. Checkpoints and
snapshots never change once they are there, so that only new ones are copied; labels and the journal of rebuilds come
last, and only with the checkpoints that they name.
"""

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from trainer.durable_files import hash_of, sync
from trainer.errors import TrainerError
from trainer.rebuild.journal import Journal
from trainer.store_snapshots.folder import SnapshotFolder, read_about
from two_tower import checkpoint as checkpoints
from two_tower.errors import TwoTowerError
from two_tower.registry import SNAPSHOTS, LabelChange, Registry


class RegistryBackupError(TrainerError):
    """A registry was not copied, or not all of it; says what and why."""


@dataclass(slots=True)
class Copied:
    """What came of copying.

    Attributes:
        num_new: Checkpoints and snapshots that were copied.
        num_there: Those that were there already, and are the same.
        labels: Labels that were written.
        failed: What was not copied, and why.
    """

    num_new: int = 0
    num_there: int = 0
    labels: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)


def copy_registry(source: Registry, target: Registry, *, newer_wins: bool) -> Copied:
    """Copies checkpoints, snapshots, labels and the journal of rebuilds; never overwrites what is another one.

    Args:
        source: Where from; it may be written to meanwhile.
        target: Where to; made if absent.
        newer_wins: Whether labels and journal that went on since the last copy take the place of those in the target;
            else the target's stay.

    Raises:
        RegistryBackupError: The source is no registry or has nothing in it.
    """
    histories = {name: source.label_history(name) for name in source.labels()}
    versions, snapshots = source.versions(), SnapshotFolder(source).names()
    if not versions:
        raise RegistryBackupError(f"{source.path} holds no checkpoint")
    target.require_writable()
    copied = Copied()
    for version in versions:
        _attempt(copied, version, source.path / version, target.path / version, checkpoints.load)
    for name in snapshots:
        _attempt(copied, name, source.path / SNAPSHOTS / name, target.path / SNAPSHOTS / name, _check_snapshot)
    there = set(target.versions())
    for name, changes in histories.items():
        if changes[-1].version not in there:
            copied.failed.append(f"label {name}: {changes[-1].version}, which it names, was not copied")
        elif _is_newer(changes, target.label_history(name), newer_wins, copied, name):
            target.put_label_history(name, changes)
            copied.labels.append(name)
    journal = Journal(source).path
    if journal.is_file() and (newer_wins or not Journal(target).path.exists()):
        _copy_file(journal, target.path)
    return copied


def _attempt(copied: Copied, name: str, source: Path, target: Path, check: Callable[[Path], object]) -> None:
    """Copies one folder that never changes, aside and then by renaming it; notes what came of it."""
    try:
        if target.exists():
            if _hashes(source) != _hashes(target):
                copied.failed.append(f"{name}: {target} holds something else of that name")
            else:
                copied.num_there += 1
            return
        check(source)
        target.parent.mkdir(exist_ok=True)
        aside = target.with_name(f".{name}.partial-{os.getpid()}")
        try:
            shutil.copytree(source, aside)
            if _hashes(source) != _hashes(aside):
                copied.failed.append(f"{name}: the copy is not what was read")
                return
            for path in [*aside.rglob("*"), aside]:
                sync(path)
            aside.rename(target)
            sync(target.parent)
            copied.num_new += 1
        finally:
            shutil.rmtree(aside, ignore_errors=True)
    except (TwoTowerError, TrainerError, OSError) as error:
        copied.failed.append(f"{name}: {error}")


def _check_snapshot(folder: Path) -> None:
    about = read_about(folder)
    for name, wanted in about.sha256.items():
        if hash_of(folder / name) != wanted:
            raise RegistryBackupError(f"{folder / name} is damaged: its hash is not that of about.json")


def _is_newer(
    changes: list[LabelChange], there: list[LabelChange], newer_wins: bool, copied: Copied, name: str
) -> bool:
    if not there:
        return True
    if there == changes:
        return False
    if newer_wins and there[-1] in changes:
        return True
    if changes[-1] not in there:
        copied.failed.append(f"label {name}: it went another way there; it was left as it is")
    return False


def _copy_file(source: Path, folder: Path) -> None:
    aside = folder / f".{source.name}.partial-{os.getpid()}"
    shutil.copyfile(source, aside)
    sync(aside)
    aside.replace(folder / source.name)
    sync(folder)


def _hashes(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): hash_of(path) for path in sorted(folder.rglob("*")) if path.is_file()}
