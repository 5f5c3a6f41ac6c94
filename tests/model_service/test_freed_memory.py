"""What is freed between things that live on goes back to the system."""

import sys
from pathlib import Path

import pytest

from model_service.freed_memory import hand_back

_BLOCK_BYTES = 50_000
_NUM_BLOCKS = 2000


def resident_pages() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1])


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux says so in /proc")
def test_holes_between_what_lives_on_are_handed_back():
    """The C library keeps them for who asks next, which after a model may be nobody."""
    blocks = [b"x" * (_BLOCK_BYTES + number) for number in range(_NUM_BLOCKS)]
    living = blocks[::100]
    blocks.clear()
    before = resident_pages()

    hand_back()

    assert before - resident_pages() > 0.5 * _BLOCK_BYTES * _NUM_BLOCKS / 4096
    assert all(block == b"x" * len(block) for block in living)
