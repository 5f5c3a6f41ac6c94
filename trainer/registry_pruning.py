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

    Those stay that a label needs, the newest `keep` of all checkpoints, and any made within `youngest_s`: somebody may
    be about to compare or label it. What is no checkpoint stays too, and does not count as one.
    """
    checkpoints, _ = checkpoints_and_others(registry)
    needed = needed_versions(registry, keep) | set(list(checkpoints)[-keep:])
    return [
        version
        for version, made_at_ms in checkpoints.items()
        if version not in needed and now.timestamp() - made_at_ms / 1000 >= youngest_s
    ]


def checkpoints_and_others(registry: Registry) -> tuple[dict[str, int], list[str]]:
    """Returns when each checkpoint was made, epoch milliseconds, and the folders without a manifest that can be read.

    Both oldest first. What such a folder is, and how old, nobody can tell.
    """
    checkpoints: dict[str, int] = {}
    others = []
    for version in registry.versions():
        try:
            checkpoints[version] = read_manifest(registry.path_of(version)).created_at_ms
        except TwoTowerError:
            others.append(version)
    return checkpoints, others
