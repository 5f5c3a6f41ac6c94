"""Says how much memory this machine, or the container around this process, has. Knows no model."""

import os
from pathlib import Path

_CGROUP_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))
"""Of cgroup versions 2 and 1; "max" or an absurd figure where there is no limit."""


def memory_bytes(limit_files: tuple[Path, ...] = _CGROUP_LIMITS) -> int:
    """Returns the memory that there is, whoever uses it now; the smaller of the machine's and the container's."""
    limits = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    for file in limit_files:
        try:
            limits.append(int(file.read_text(encoding="ascii")))
        except (OSError, ValueError):
            continue
    return min(limits)
