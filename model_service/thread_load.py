"""Tells for how long the thread that asks was not idle. Knows Linux's /proc; knows no loop and no request."""

import time
from pathlib import Path

_SCHEDULED = Path("/proc/thread-self/schedstat")


def not_idle_s() -> float:
    """Returns for how many seconds this thread has run, or was ready to run and waited for a core.

    Where the system does not tell of the wait (other systems than Linux, and kernels built without it), the seconds for
    which it has run. Source: Documentation/scheduler/sched-stats.rst of Linux, /proc/PID/schedstat.
    """
    try:
        ran_ns, waited_ns, _ = _SCHEDULED.read_text().split()
    except OSError:
        return time.thread_time()
    return (int(ran_ns) + int(waited_ns)) / 1e9
