"""Attacks a reader with a bug, to show that what is planted is found: chance alone would need some 2 ** 40 inputs."""

from collections.abc import Sequence
from pathlib import Path


class PlantedReader:
    """Reads a format that there is not."""

    def __init__(self, folder: Path) -> None:
        """Needs no files."""

    def seeds(self) -> Sequence[bytes]:
        """Returns a sound input, which is far from the bug."""
        return [b"marquee"]

    def attack(self, data: bytes) -> None:
        """Raises IndexError for what only who looks at which code an input reaches comes to."""
        if len(data) < 5:
            return
        # One byte a step: each is code that none has reached before.
        if data[0] == 0x4D and data[1] == 0x51 and data[2] == 0x32 and data[3] > 0xF0:
            data[data[3] + len(data)]
