"""Lets one process at a time rebuild a registry, or tell it what was published. Knows one file; no step of a rebuild.

The lock is the kernel's (flock): it ends with its process, however that ends, so nothing has to be cleaned up.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from filelock import FileLock, Timeout

from trainer.errors import TrainerError
from two_tower.registry import Registry

_NAME = ".rebuild.lock"
_TIMEOUT_S = 2.0
"""Longer than a look at the lock takes, and far shorter than a rebuild."""


class BusyError(TrainerError):
    """Another process rebuilds this registry."""


@contextmanager
def only_one(registry: Registry) -> Iterator[None]:
    """Keeps others from rebuilding while the block lasts.

    Raises:
        BusyError: Another one does it.
    """
    registry.require_writable()
    lock = FileLock(registry.path / _NAME, timeout=_TIMEOUT_S)
    try:
        lock.acquire()
    except Timeout as error:
        raise BusyError(
            f"{registry.path} is being rebuilt by another process; `trainer rebuild --status` says how far it is"
        ) from error
    try:
        yield
    finally:
        lock.release()


def is_running(registry: Registry) -> bool:
    """Tells whether some process rebuilds the registry now."""
    if not (registry.path / _NAME).exists():
        return False
    lock = FileLock(registry.path / _NAME, timeout=0)
    try:
        lock.acquire()
    except Timeout:
        return True
    lock.release()
    return False
