"""Holds locks to constraints.txt and to what is installed. Asks no index."""

from collections.abc import Iterator, Mapping
from pathlib import Path

from packaging.utils import NormalizedName

from deploy.locks.contents import CUDA, TORCH, held_elsewhere, installed_closure, requirements
from deploy.locks.lock import Pin, read_pins

Pins = Mapping[NormalizedName, Pin]


def complaints(folder: Path, constraints: Path) -> list[str]:
    """Returns all that is wrong with the locks of a folder, one line each.

    Raises:
        LockError: A file is no list of exact versions.
        PackageNotFoundError: Something that an image needs is not installed.
    """
    pinned = read_pins(constraints)
    found: list[str] = []
    for name, requirement in requirements().items():
        lock = read_pins(folder / f"{name}.txt")
        # torch's own needs are in the locks of the images that have it.
        needed = {TORCH} if name == TORCH else installed_closure(requirement) - held_elsewhere(name)
        wrong = (*_unhashed(lock), *_other_versions(lock, pinned), *_other_packages(lock, needed))
        found += [f"{name}.txt: {each}" for each in wrong]
    cuda = read_pins(folder / f"{CUDA}.txt")
    twice = [f"{each} is pinned by {constraints.name} too" for each in sorted(cuda.keys() & pinned.keys())]
    return found + [f"{CUDA}.txt: {each}" for each in (*_unhashed(cuda), *twice)]


def _unhashed(lock: Pins) -> Iterator[str]:
    return (f"{name} has no hash" for name, pin in lock.items() if not pin.hashes)


def _other_versions(lock: Pins, pinned: Pins) -> Iterator[str]:
    for name, pin in lock.items():
        if name in pinned and pinned[name].version != pin.version:
            yield f"{name} is {pin.version}, and {pinned[name].version} is pinned"
        # What other machines want is not installed where the constraints are written.
        if name not in pinned and not pin.marker:
            yield f"{name} is not pinned"


def _other_packages(lock: Pins, needed: frozenset[NormalizedName] | set[NormalizedName]) -> Iterator[str]:
    for name in sorted(needed - lock.keys()):
        yield f"{name} is needed and missing"
    for name in sorted(lock.keys() - needed):
        if not lock[name].marker:
            yield f"{name} is not needed"
