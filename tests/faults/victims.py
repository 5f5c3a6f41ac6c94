"""What is killed, and how it comes back. Knows processes, ports and files; knows no event."""

import asyncio
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Protocol

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from feature_service import child_process
from feature_service.embedded_redis import find_server
from tests.feature_process import FeatureProcess
from tests.redis_cluster import NUM_MASTERS, Cluster, free_ports, until


class Victim(Protocol):
    """Something that dies and comes back where it was."""

    def kill(self) -> None:
        """Sends SIGKILL and waits for the end."""

    def revive(self) -> None:
        """Starts it again and waits until it can be used."""


class KilledService:
    """A feature_service on a port of its own."""

    def __init__(self, folder: Path, **settings: str) -> None:
        """Starts it."""
        self._folder = folder
        self.address = f"127.0.0.1:{free_ports(1)[0]}"
        self._settings = {"FEATURE_LISTEN": self.address, "FEATURE_REDIS_TIMEOUT_S": "2", **settings}
        self.revive()

    def kill(self) -> None:
        """See `Victim`."""
        self._process.stop(signal.SIGKILL)

    def revive(self) -> None:
        """See `Victim`."""
        self._process = FeatureProcess(self._folder, **self._settings)
        self._process.wait_for("dependency_found", dependency="redis")

    def stop(self) -> None:
        """Ends it as an operator does."""
        assert self._process.stop() == 0


class KilledRedis:
    """A Redis that appends every write to a file, as deploy and the embedded one do."""

    def __init__(self, folder: Path, fsync: str, library: Path | None = None) -> None:
        """Starts it; `fsync` is everysec or always, `library` is loaded before all others."""
        self._folder = folder
        self._fsync = fsync
        self._variables = {} if library is None else {"LD_PRELOAD": str(library)}
        self.socket = folder / "redis.sock"
        self.url = f"unix://{self.socket}"
        self._client = redis.Redis(unix_socket_path=str(self.socket), retry=Retry(NoBackoff(), 0))
        self.revive()

    def kill(self) -> None:
        """See `Victim`; at a moment at which Redis does not hold writes back because a sync is under way.

        With everysec it acknowledges them all the same, see `kill_while_syncing`.
        """
        until(lambda: not self._persistence()["aof_pending_bio_fsync"], "no sync is under way")
        self._kill()

    def kill_while_syncing(self) -> None:
        """Kills it while it holds acknowledged writes back because the disk is slow to sync earlier ones."""
        until(lambda: self._persistence()["aof_buffer_length"] > 0, "writes wait for the disk")
        self._kill()

    def _kill(self) -> None:
        self._process.kill()
        self._process.wait(20)

    def _persistence(self) -> dict[str, int]:
        found: dict[str, int] = self._client.info("persistence")
        return found

    def revive(self) -> None:
        """See `Victim`."""
        self._start("--appendonly", "yes", "--appendfsync", self._fsync)
        until(self._answers, "Redis answers", timeout_s=60)

    @property
    def pid(self) -> int:
        """By which it is sent signals."""
        return self._process.pid

    def write_file_anew(self) -> None:
        """Makes the file whole: 7.0 leaves half a transaction at its cut, which the next start would run."""
        self._client.bgrewriteaof()
        until(lambda: not self._persistence()["aof_rewrite_in_progress"], "the file is written anew")

    def load_slowly(self) -> None:
        """Starts it again on the snapshot of its SAVE, of which each key takes 50 ms, and waits until it loads."""
        self._kill()
        self._start("--key-load-delay", "50000", "--loading-process-events-interval-bytes", "1024")
        until(self._loads, "Redis is loading")

    def _start(self, *arguments: str) -> None:
        folder = str(self._folder)
        self._process = subprocess.Popen(
            [
                # Ends with this process, also if that is killed.
                *(sys.executable, "-I", child_process.__file__, str(os.getpid())),
                *(str(find_server()), "--port", "0", "--unixsocket", str(self.socket), "--dir", folder),
                *("--save", "", "--logfile", f"{folder}/log", *arguments),
            ],
            env={**os.environ, **self._variables},
        )

    def _loads(self) -> bool:
        try:
            self._client.ping()
        except redis.exceptions.BusyLoadingError:
            return True
        except redis.exceptions.ConnectionError:
            return False
        raise AssertionError("it has loaded already")

    def stop(self) -> None:
        """Ends it."""
        self._process.terminate()
        self._process.wait(20)
        self._client.close()

    def aof(self) -> Path:
        """Returns the file that writes are appended to now; from Redis 7 on each rewrite begins a new one."""
        files = list((self._folder / "appendonlydir").glob("*.incr.aof"))
        if not files:
            return self._folder / "appendonly.aof"
        return max(files, key=lambda file: int(file.name.split(".")[-3]))

    def lose_tail(self, size_bytes: int) -> None:
        """Cuts the file of a killed Redis, as a power loss does with what was not synced."""
        with self.aof().open("r+b") as file:
            file.truncate(size_bytes)

    def _answers(self) -> bool:
        assert self._process.poll() is None, (self._folder / "log").read_text()
        try:
            return bool(self._client.ping())
        except (redis.exceptions.ConnectionError, redis.exceptions.BusyLoadingError):
            return False


class KilledMaster:
    """Some master of a cluster: its replica takes over, and it comes back as the replica of that."""

    def __init__(self, cluster: Cluster, rng: random.Random) -> None:
        """Stores the cluster."""
        self._cluster = cluster
        self._rng = rng

    def kill(self) -> None:
        """See `Victim`; a replica has taken over when it returns."""
        masters = self._masters()
        self._killed = self._rng.choice(masters)
        self._cluster.processes[self._killed].kill()
        self._cluster.processes[self._killed].wait(20)
        until(lambda: len(set(self._masters()) - set(masters)) == 1, "a replica takes over", timeout_s=60)

    def revive(self) -> None:
        """See `Victim`; every master has a replica that follows when it returns."""
        self._cluster.processes[self._killed] = self._cluster.start(self._cluster.ports[self._killed])
        until(lambda: len(self._masters()) == NUM_MASTERS and self._all_follow(), "replicas follow", timeout_s=60)

    def _masters(self) -> list[int]:
        roles = [(number, self._role(number)) for number in range(len(self._cluster.ports))]
        return [number for number, role in roles if role == "master"]

    def _role(self, number: int) -> str:
        with self._cluster.server(number) as server:
            try:
                return str(server.info("replication")["role"])
            except (redis.exceptions.ConnectionError, redis.exceptions.BusyLoadingError):
                return "away"

    def _all_follow(self) -> bool:
        for number in self._masters():
            with self._cluster.server(number) as server:
                found = server.info("replication")
                if found["connected_slaves"] < 1 or found["slave0"]["state"] != "online":
                    return False
        return True


class AofSizes:
    """Notes how the append-only file grows, so that one can tell what a power loss may take."""

    def __init__(self, server: KilledRedis) -> None:
        """Stores whose file it is."""
        self._server = server
        self._sizes: list[tuple[float, int]] = []

    async def watch(self) -> None:
        """Notes the size until it is cancelled."""
        while True:
            self._sizes.append((time.monotonic(), self._server.aof().stat().st_size))
            await asyncio.sleep(0.02)

    def at(self, moment: float) -> int:
        """Returns the size at a point of `time.monotonic`, as of the last note before it."""
        return max((size for noted, size in self._sizes if noted <= moment), default=0)


_SLOW_SYNC = """
#include <unistd.h>
int fdatasync(int file) { usleep(MICROSECONDS); return fsync(file); }
"""


def slow_disk(folder: Path, compiler: str, sync_s: float) -> Path:
    """Returns a library that makes each sync of a file take so long, as a disk under load does."""
    source, library = folder / "slow_sync.c", folder / "slow_sync.so"
    source.write_text(_SLOW_SYNC)
    duration = f"-DMICROSECONDS={round(sync_s * 1e6)}"
    subprocess.run([compiler, "-shared", "-fPIC", duration, "-o", library, source], check=True)
    return library
