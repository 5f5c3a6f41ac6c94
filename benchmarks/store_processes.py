"""Runs a redis-server and a feature_service on it, as processes whose use of the machine can be told apart.

Knows how they are started and stopped; knows no user and no figure.
"""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import redis

from deploy.local.processes import ServiceProcess, free_address
from feature_service import child_process
from feature_service.embedded_redis import find_server

_START_TIMEOUT_S = 60.0


@dataclass(frozen=True, slots=True)
class RunningRedis:
    """A redis-server.

    Attributes:
        pid: Its process.
        port: On the loopback address, as other stores' clients want it.
    """

    pid: int
    port: int

    @property
    def url(self) -> str:
        """Where it is."""
        return f"redis://127.0.0.1:{self.port}/0"

    def client(self) -> redis.Redis:
        """Returns a blocking client."""
        return redis.Redis(port=self.port)


@dataclass(frozen=True, slots=True)
class RunningService:
    """A feature_service.

    Attributes:
        pid: Its process.
        address: HOST:PORT.
    """

    pid: int
    address: str


@contextmanager
def redis_server(folder: Path, *, append_only: bool) -> Iterator[RunningRedis]:
    """Runs an empty redis-server until the block ends; its files lie in a folder that is removed then.

    Args:
        folder: Is made; must not exist.
        append_only: Whether it keeps every write in a file, synced once a second, as the one of a deployment does.
    """
    folder.mkdir(parents=True)
    port = int(free_address().rpartition(":")[2])
    process = subprocess.Popen(
        [
            # Ends with this process, also if that is killed.
            *(sys.executable, "-I", child_process.__file__, str(os.getpid())),
            *(str(find_server()), "--bind", "127.0.0.1", "--port", str(port), "--dir", str(folder.absolute())),
            *("--save", "", "--appendonly", "yes" if append_only else "no", "--appendfsync", "everysec"),
            *("--logfile", str(folder.absolute() / "redis.log")),
        ]
    )
    running = RunningRedis(process.pid, port)
    try:
        _wait_for(running, process, folder / "redis.log")
        yield running
    finally:
        process.terminate()
        process.wait(60)
        shutil.rmtree(folder)


@contextmanager
def feature_service(on: RunningRedis, log: Path, settings: Mapping[str, str] | None = None) -> Iterator[RunningService]:
    """Runs a feature_service until the block ends.

    Args:
        on: Its Redis.
        log: File that it logs to.
        settings: Further settings, by name.
    """
    address = free_address()
    given = {"FEATURE_LISTEN": address, "FEATURE_REDIS_URL": on.url, **(settings or {})}
    with ServiceProcess("feature_service", address, given, log) as process:
        process.wait_until_serving(_START_TIMEOUT_S)
        assert process.pid is not None
        yield RunningService(process.pid, address)


def _wait_for(running: RunningRedis, process: subprocess.Popen[bytes], log: Path) -> None:
    give_up = time.monotonic() + _START_TIMEOUT_S
    with running.client() as client:
        while True:
            try:
                client.ping()
            except redis.exceptions.ConnectionError:
                if process.poll() is not None or time.monotonic() > give_up:
                    raise RuntimeError(f"redis-server does not start: {log.read_text()}") from None
                time.sleep(0.02)
            else:
                return
