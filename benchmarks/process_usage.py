"""Tells what a process has used so far: processor time and memory. Knows /proc; knows no process by name."""

import os
from pathlib import Path

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


def cpu_s(pid: int) -> float:
    """Returns the processor time, user and system, of a process and all its threads; not of its children."""
    return _used_s(Path(f"/proc/{pid}/stat"))


def main_thread_cpu_s(pid: int) -> float:
    """Returns the processor time, user and system, of the first thread of a process."""
    return _used_s(Path(f"/proc/{pid}/task/{pid}/stat"))


def main_thread_scheduled_ns(pid: int) -> tuple[int, int]:
    """Returns for how long the first thread of a process ran, and for how long it was ready but had to wait for a core.

    Source: Documentation/scheduler/sched-stats.rst of Linux, /proc/PID/schedstat.
    """
    ran, waited, _ = Path(f"/proc/{pid}/task/{pid}/schedstat").read_text().split()
    return int(ran), int(waited)


def cpu_with_children_s(pid: int) -> float:
    """Returns the processor time of a process, of its living descendants, and of those that it waited for."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    ended = (int(fields[13]) + int(fields[14])) / _TICKS_PER_S
    return cpu_s(pid) + ended + sum(cpu_with_children_s(child) for child in _children(pid))


def peak_bytes(pid: int) -> int:
    """Returns the most memory that a process ever had resident."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise ProcessLookupError(f"process {pid} has ended")


def pss_bytes(pid: int) -> int:
    """Returns the memory that a process holds now, shared pages counted by their share."""
    return _rolled_up_bytes(pid, "Pss")


def pss_with_children_bytes(pid: int, kind: str = "Pss") -> int:
    """Returns the memory that a process and its living descendants hold now, shared pages counted by their share.

    Args:
        pid: The process.
        kind: "Pss", or of what alone: "Pss_Anon", "Pss_File", "Pss_Shmem" (proc(5), smaps_rollup).
    """
    return _rolled_up_bytes(pid, kind) + sum(pss_with_children_bytes(child, kind) for child in _children(pid))


def _rolled_up_bytes(pid: int, kind: str) -> int:
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith(f"{kind}:"):
            return int(line.split()[1]) * 1024
    raise ProcessLookupError(f"process {pid} has ended")


def _used_s(stat: Path) -> float:
    # The name, in brackets, may hold spaces: what counts comes after it (proc(5), fields 14 and 15).
    fields = stat.read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS_PER_S


def _children(pid: int) -> list[int]:
    return [
        int(child)
        for thread in Path(f"/proc/{pid}/task").iterdir()
        for child in (thread / "children").read_text().split()
    ]
