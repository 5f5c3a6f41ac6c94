"""Reads lists of exact versions: locks, whose lines carry hashes, and constraints.txt. Knows no image."""

import re
from dataclasses import dataclass
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import NormalizedName, canonicalize_name

_OPTION = re.compile(r"\s--hash=")
_EXACT = re.compile(r"==([^*,=]+)")
_SHA256 = re.compile(r"sha256:[0-9a-f]{64}")


class LockError(Exception):
    """A list says something else than exact versions; the text names the file and the line."""


@dataclass(frozen=True, slots=True)
class Pin:
    """One line.

    Attributes:
        version: The only one that may be installed.
        marker: Which machines want it; empty for all.
        hashes: Of the files that may be installed; empty in constraints.txt.
    """

    version: str
    marker: str
    hashes: frozenset[str]


def read_pins(path: Path) -> dict[NormalizedName, Pin]:
    """Returns the lines of a file by the packages that they name.

    Raises:
        LockError: A line is no exact version, a hash is not SHA-256, or a package is named twice.
    """
    pins: dict[NormalizedName, Pin] = {}
    for line in path.read_text(encoding="utf-8").replace("\\\n", " ").splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        words, *hashes = (part.strip() for part in _OPTION.split(line))
        requirement = Requirement(words)
        name, exact = canonicalize_name(requirement.name), _EXACT.fullmatch(str(requirement.specifier))
        if exact is None:
            raise LockError(f"{path.name}: {words!r} is no exact version")
        if name in pins:
            raise LockError(f"{path.name}: {name} stands there twice")
        for each in hashes:
            if _SHA256.fullmatch(each) is None:
                raise LockError(f"{path.name}: {each!r} of {name} is no sha256:HEX")
        pins[name] = Pin(exact[1], str(requirement.marker or ""), frozenset(hashes))
    return pins
