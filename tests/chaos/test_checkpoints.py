"""Drills on checkpoints: a label names one that is truncated, bit-flipped, foreign, or claims a huge header."""

import dataclasses
import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.chaos.conftest import Drill
from tests.chaos.stack import ChaosStack
from two_tower import manifest as manifest_form
from two_tower.checkpoint import MANIFEST, WEIGHTS
from two_tower.registry import STABLE

pytestmark = pytest.mark.timeout(300)
Damage = Callable[[Path], None]


def truncate(folder: Path) -> None:
    """Cuts the weights in half."""
    with (folder / WEIGHTS).open("r+b") as file:
        file.truncate((folder / WEIGHTS).stat().st_size // 2)


def flip_a_bit(folder: Path) -> None:
    """Changes one bit in the middle of the weights."""
    content = bytearray((folder / WEIGHTS).read_bytes())
    content[len(content) // 2] ^= 1
    (folder / WEIGHTS).write_bytes(content)


def make_foreign(folder: Path) -> None:
    """Makes the manifest one of another program."""
    written = (folder / MANIFEST).read_text()
    (folder / MANIFEST).write_text(written.replace("marquee-checkpoint", "somebody-elses-checkpoint"))


def claim_a_huge_header(folder: Path) -> None:
    """Lets the weights claim a header of exabytes; their hash is right."""
    content = (1 << 62).to_bytes(8, "little") + (folder / WEIGHTS).read_bytes()[8:]
    (folder / WEIGHTS).write_bytes(content)
    change_manifest(folder, weights_sha256=hashlib.sha256(content).hexdigest())


def change_manifest(folder: Path, **changed: Any) -> None:
    """Writes the manifest anew with other fields, and the hash that it ends in."""
    manifest = manifest_form.parse((folder / MANIFEST).read_bytes())
    (folder / MANIFEST).write_bytes(manifest_form.dump(dataclasses.replace(manifest, **changed)))


@pytest.mark.parametrize(
    ("name", "damage", "reason"),
    [
        pytest.param("checkpoint truncated", truncate, "altered or damaged", marks=pytest.mark.chaos),
        pytest.param("checkpoint bit-flipped", flip_a_bit, "altered or damaged"),
        pytest.param("checkpoint of a foreign format", make_foreign, "marquee-checkpoint", marks=pytest.mark.chaos),
        pytest.param("checkpoint with a huge header", claim_a_huge_header, "claims a header", marks=pytest.mark.chaos),
    ],
)
async def test_checkpoint_damaged(stack: ChaosStack, drill: Drill, name: str, damage: Damage, reason: str):
    """It is refused by name, what answered goes on, and no caller notices."""
    registry = stack.trained.registry
    good = registry.labels()[STABLE]
    bad = name.replace(" ", "-")
    shutil.copytree(registry.path_of(good), registry.path / bad)
    change_manifest(registry.path / bad, version=bad)
    damage(registry.path / bad)
    async with drill(name) as load:
        registry.set_label(STABLE, bad)
        try:
            refused = await stack.model.log.has_said("refused", model_version=bad)
            await load.until_answered(20)
        finally:
            registry.set_label(STABLE, good)
    assert reason in refused["reason"]
    assert not load.noticed()
