"""Rebuilds copies of a registry, each killed at another step and then begun again; prints what came of it as JSON.

A process of its own, which forks for each rebuild: no gRPC object may exist before a fork, and imports take seconds.
"""

import json
import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from marquee.client.channel import open_sync_channel

from tests.integration.rebuild.looped import PLAN
from trainer.rebuild.journal import Journal
from trainer.rebuild.lock import only_one
from trainer.rebuild.rebuilding import Rebuild
from trainer.rebuild.store_reading import StoreReader
from trainer.store_snapshots.folder import SnapshotFolder
from two_tower.registry import STABLE, Registry


def in_fork(do: Callable[[], None]) -> int:
    """Runs something in a child; returns the status that it ended with, negative for a signal."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            do()
            status = 0
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def rebuild(path: Path, address: str, killed_at: str | None) -> None:
    """Rebuilds, or ends as if the power went at a step."""

    def told(step: str) -> None:
        if step == killed_at:
            os.kill(os.getpid(), signal.SIGKILL)

    registry = Registry(path)
    with only_one(registry), open_sync_channel(address) as channel:
        Rebuild(registry, StoreReader(channel), PLAN, told=told).run()


def main(begun: Path, address: str, steps: list[str]) -> None:
    """Prints a line for each step."""
    for number, step in enumerate(steps):
        path = begun.with_name(f"killed-{number}")
        shutil.copytree(begun, path)
        statuses = [in_fork(lambda path=path, at=at: rebuild(path, address, at)) for at in (step, None)]  # type: ignore[misc]
        registry, snapshots = Registry(path), SnapshotFolder(Registry(path))
        record, newest = Journal(registry).read(), snapshots.newest() or ""
        told = {
            "statuses": statuses,
            "under_way": record.run is not None,
            "outcomes": [result.outcome for result in record.results],
            "label": registry.label(STABLE) == record.results[-1].version,
            "label_changes": len(registry.label_history(STABLE)),
            "snapshots": len(snapshots.names()),
            "rows": snapshots.about(newest).num_rows,
            "versions": len(registry.versions()),
            "partial": [each.name for each in path.glob("**/.*partial*")],
        }
        print(json.dumps(told), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3:])
