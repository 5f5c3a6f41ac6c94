"""Removes checkpoints that nobody needs any more. Knows labels and ages; knows no model."""

import os
import shutil
from datetime import datetime

from two_tower.checkpoint import read_manifest
from two_tower.errors import TwoTowerError
from two_tower.registry import Registry


def needed_versions(registry: Registry, keep: int) -> set[str]:
    """Returns what labels name, what is on trial beside them, and what each may be rolled back to.

    Args:
        registry: Whose labels.
        keep: Versions of each label, the present one among them; at least 1.
    """
    needed: set[str] = set()
    for label in registry.labels():
        changes = registry.label_history(label)
        needed.update(registry.rollback_line(label)[: max(1, keep)])
        needed.update(change.canary.version for change in changes[-1:] if change.canary)
    return needed


def remove_version(registry: Registry, version: str) -> None:
    """Removes a checkpoint; no reader ever sees half of it."""
    aside = registry.path / f".{version}.partial-{os.getpid()}"
    (registry.path / version).rename(aside)
    shutil.rmtree(aside)


def superfluous_versions(registry: Registry, keep: int, youngest_s: float, now: datetime) -> list[str]:
    """Returns the versions that may go, oldest first.

    Those stay that a label needs, the newest `keep` of all, and any made within `youngest_s`: somebody may be about to
    compare or label it. One whose age cannot be read stays too.
    """
    versions = registry.versions()
    needed = needed_versions(registry, keep) | set(versions[-keep:])
    return [
        version
        for version in versions
        if version not in needed and (age_s := _age_s(registry, version, now)) is not None and age_s >= youngest_s
    ]


def _age_s(registry: Registry, version: str, now: datetime) -> float | None:
    try:
        return now.timestamp() - read_manifest(registry.path_of(version)).created_at_ms / 1000
    except TwoTowerError:
        return None
