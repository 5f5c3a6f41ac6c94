"""Starts a real Redis cluster: three masters, three replicas, on free ports of this machine."""

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import redis

from feature_service import child_process
from feature_service.embedded_redis import find_server
from tests.redis_guard import RedisGuard

NUM_MASTERS = 3
NUM_SLOTS = 16_384
NODE_TIMEOUT_MS = 1000


class Cluster:
    """Six servers; master i has replica i + 3."""

    def __init__(self, *, guarded: bool = False) -> None:
        """Starts the servers and waits until they agree; guarded ones want TLS and know their users."""
        self._folder = Path(tempfile.mkdtemp(prefix="marquee-cluster-"))
        self.guard = RedisGuard(self._folder) if guarded else None
        self.ports = free_ports(2 * NUM_MASTERS)
        self.processes = [self.start(port) for port in self.ports]
        self._join()

    @property
    def url(self) -> str:
        """By which a client finds the cluster."""
        return f"{'redis' if self.guard is None else 'rediss'}://127.0.0.1:{self.ports[0]}"

    def start(self, port: int) -> subprocess.Popen[bytes]:
        """Starts one server on its folder, with what it had."""
        folder = self._folder / str(port)
        folder.mkdir(exist_ok=True)
        if self.guard is None:
            server, listening = find_server(), ["--port", str(port)]
        else:
            server, listening = self.guard.server(), self.guard.arguments(port)
        return subprocess.Popen(
            [
                # Ends with this process, also if that is killed.
                *(sys.executable, "-I", child_process.__file__, str(os.getpid())),
                *(str(server), *listening, "--bind", "127.0.0.1", "--dir", str(folder)),
                *("--cluster-enabled", "yes", "--cluster-node-timeout", str(NODE_TIMEOUT_MS)),
                *("--save", "", "--appendonly", "yes", "--appendfsync", "no", "--repl-diskless-sync-delay", "0"),
                *("--logfile", str(folder / "log")),
            ]
        )

    def server(self, number: int) -> redis.Redis:
        """Returns a connection to one server."""
        return self._connect(self.ports[number])

    def _connect(self, port: int) -> redis.Redis:
        return redis.Redis(port=port) if self.guard is None else self.guard.client(port)

    def flush(self) -> None:
        """Empties the cluster."""
        for port in self.ports:
            with self._connect(port) as client:
                if client.info("replication")["role"] == "master":
                    client.flushall()

    def stop(self) -> None:
        """Ends all servers and removes their folders."""
        for process in self.processes:
            process.terminate()
        for process in self.processes:
            process.wait(20)
        shutil.rmtree(self._folder, ignore_errors=True)

    def _join(self) -> None:
        clients = [self._connect(port) for port in self.ports]
        until(lambda: all(_answers(client) for client in clients), "servers answer")
        for number, client in enumerate(clients[:NUM_MASTERS]):
            first = NUM_SLOTS * number // NUM_MASTERS
            last = NUM_SLOTS * (number + 1) // NUM_MASTERS - 1
            client.execute_command(
                "CLUSTER",
                "ADDSLOTSRANGE" if _has_ranges(client) else "ADDSLOTS",
                *((first, last) if _has_ranges(client) else range(first, last + 1)),
            )
            client.execute_command("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
        for port in self.ports[1:]:
            clients[0].execute_command("CLUSTER", "MEET", "127.0.0.1", port)
        until(lambda: all(_known_nodes(client) == len(clients) for client in clients), "servers know each other")
        for number, client in enumerate(clients[NUM_MASTERS:]):
            master = clients[number].execute_command("CLUSTER", "MYID")
            client.execute_command("CLUSTER", "REPLICATE", master)
        until(lambda: all(_state(client) == "ok" for client in clients), "the cluster is up")
        until(
            lambda: all(client.info("replication")["connected_slaves"] == 1 for client in clients[:NUM_MASTERS]),
            "replicas follow",
        )
        for client in clients:
            client.close()


@contextmanager
def running_cluster(*, guarded: bool = False) -> Iterator[Cluster]:
    """Runs a cluster until the block ends, with the servers that were started again meanwhile."""
    cluster = Cluster(guarded=guarded)
    try:
        yield cluster
    finally:
        cluster.stop()


def free_ports(number: int) -> list[int]:
    """Returns ports that are free, and whose cluster bus ports, 10,000 above, are valid."""
    sockets = []
    ports: list[int] = []
    while len(ports) < number:
        candidate = socket.socket()
        candidate.bind(("127.0.0.1", 0))
        sockets.append(candidate)
        port = candidate.getsockname()[1]
        if port < 55_000:
            ports.append(port)
    for each in sockets:
        each.close()
    return ports


def until(condition: Callable[[], bool], what: str, timeout_s: float = 30.0) -> None:
    """Waits until something is so."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"waited {timeout_s:g} s: {what}"
        time.sleep(0.05)


def _answers(client: redis.Redis) -> bool:
    try:
        return bool(client.ping())
    except redis.exceptions.ConnectionError:
        return False


def _has_ranges(client: redis.Redis) -> bool:
    return int(client.info("server")["redis_version"].partition(".")[0]) >= 7


def _known_nodes(client: redis.Redis) -> int:
    return int(client.cluster("info")["cluster_known_nodes"])


def _state(client: redis.Redis) -> str:
    return str(client.cluster("info")["cluster_state"])
