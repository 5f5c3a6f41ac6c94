"""Removes what rebuilds made and nobody needs any more. Knows labels, snapshots and the journal; makes nothing."""

from trainer.rebuild.journal import Journal
from trainer.registry_pruning import needed_versions, remove_version
from trainer.store_snapshots.folder import SnapshotFolder
from two_tower.registry import Registry


def prune_snapshots(snapshots: SnapshotFolder, keep: int) -> list[str]:
    """Removes all but the newest `keep` snapshots, and all that hold somebody whom a later one has forgotten."""
    names = snapshots.names()
    kept: list[str] = []
    for name in reversed(names):
        kept.append(name)
        if len(kept) >= keep or snapshots.about(name).num_deleted:
            break
    removed = [name for name in names if name not in kept]
    for name in removed:
        snapshots.remove(name)
    return removed


def prune_versions(registry: Registry, journal: Journal, keep: int) -> list[str]:
    """Removes checkpoints that rebuilds made, but what a label names or may be rolled back to, and the last candidate.

    What people trained is never touched.
    """
    results = journal.read().results
    needed = needed_versions(registry, keep)
    needed.update(result.candidate for result in results[-1:] if result.candidate)
    made = {version for result in results for version in (result.candidate, result.refitted)}
    removed = [version for version in registry.versions() if version in made - needed]
    for version in removed:
        remove_version(registry, version)
    return removed
