"""Makes threads whose work gives way to that of the others. Knows operating systems; knows no work."""

import os
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

_NICENESS = 10
"""Of a processor that all want, such a thread gets about a tenth: sched(7), a factor of 1.25 for each step."""


@contextmanager
def background_thread(name: str) -> Iterator[ThreadPoolExecutor]:
    """Gives an executor of one thread that is served after the others, where the system knows threads as tasks.

    Whoever leaves the context does not wait for what the thread is at: nobody will use what it makes.
    """
    executor = ThreadPoolExecutor(1, name, initializer=_give_way)
    try:
        yield executor
    finally:
        executor.shutdown(wait=False, cancel_futures=True)


def _give_way() -> None:
    if sys.platform == "linux":
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICENESS)
