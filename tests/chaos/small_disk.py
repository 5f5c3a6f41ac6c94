"""A disk so small that a test can fill it. Knows mounts; knows nothing of who writes to it."""

import errno
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_SIZE = "24m"
_PIECE = bytes(1 << 16)


@dataclass(frozen=True)
class Disk:
    """A folder.

    Attributes:
        folder: Where it is.
        can_be_filled: Whether it is a disk of its own.
    """

    folder: Path
    can_be_filled: bool

    @contextmanager
    def full(self) -> Iterator[None]:
        """Takes all its space while the block lasts."""
        filler = self.folder / "filler"
        with filler.open("wb", buffering=0) as file:
            try:
                while True:
                    file.write(_PIECE)
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise
        try:
            yield
        finally:
            filler.unlink()


@contextmanager
def small_disk(folder: Path) -> Iterator[Disk]:
    """Mounts a small disk in memory, where this user may do so; else gives the folder as it is."""
    mounted = os.geteuid() == 0 and _succeeds("mount", "-t", "tmpfs", "-o", f"size={_SIZE}", "tmpfs", str(folder))
    try:
        yield Disk(folder, mounted)
    finally:
        if mounted:
            # Lazily: a server that has just ended may hold a file for a moment.
            subprocess.run(["umount", "--lazy", str(folder)], check=True)


def _succeeds(*command: str) -> bool:
    return subprocess.run(command, capture_output=True, check=False).returncode == 0
