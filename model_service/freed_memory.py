"""Hands memory that nobody uses any more back to the system. Knows the C library; knows no model."""

import ctypes
import sys


def hand_back() -> None:
    """Hands back what was freed, where the C library can be told to (glibc); else does nothing.

    A model leaves holes between what lives on, and the next one is put elsewhere: without this, memory grew by 3 %
    over fifty swaps (docs/decisions/0061-loading-gives-way.md). It takes some 2 ms, without Python's lock.
    """
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(ctypes.c_size_t(0))
