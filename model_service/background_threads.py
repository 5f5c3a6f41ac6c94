"""Makes threads whose work gives way to that of the others. Knows operating systems; knows no work."""

import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

_NICENESS = 10
"""Of a processor that all want, such a thread gets about a tenth: sched(7), a factor of 1.25 for each step."""


def background_thread(name: str) -> ThreadPoolExecutor:
    """Returns an executor of one thread that is served after the others, where the system knows threads as tasks."""
    return ThreadPoolExecutor(1, name, initializer=_give_way)


def _give_way() -> None:
    if sys.platform == "linux":
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICENESS)
