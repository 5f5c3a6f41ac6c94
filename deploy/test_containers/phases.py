"""Tells how long each phase of a long run took. Knows no containers."""

import time
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def phase(name: str) -> Iterator[None]:
    """Prints what begins, and what it took when it ended well."""
    print(f"\n{name} ...", flush=True)
    begun = time.monotonic()
    yield
    print(f"{name}: {time.monotonic() - begun:.0f} s", flush=True)
