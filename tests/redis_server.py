"""A pytest plugin: one real Redis a session, empty for every test that asks for it.

With MARQUEE_TEST_REDIS=cluster it is a real cluster; tests that are about one server are then skipped. With `guarded`
and `guarded-cluster` they want TLS and know their users.
"""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import redis
from pydantic import SecretStr

from feature_service import child_process
from feature_service.embedded_redis import find_server
from tests.redis_cluster import Cluster, free_ports, running_cluster
from tests.redis_guard import RedisGuard

GUARDED = os.environ.get("MARQUEE_TEST_REDIS", "").startswith("guarded")
ON_CLUSTER = os.environ.get("MARQUEE_TEST_REDIS", "").endswith("cluster")


@dataclass(frozen=True)
class RunningRedis:
    """One redis-server of the tests: where it listens, and what guards it, if anything does."""

    url: str
    guard: RedisGuard | None = None


@contextmanager
def guarded_redis() -> Iterator[RunningRedis]:
    """Runs a Redis that wants TLS and knows its users."""
    with tempfile.TemporaryDirectory(prefix="marquee-test-") as folder:
        guard = RedisGuard(Path(folder))
        (port,) = free_ports(1)
        with _running(Path(folder), guard.server(), guard.arguments(port), lambda: guard.client(port)):
            yield RunningRedis(f"rediss://127.0.0.1:{port}", guard)


@pytest.fixture(scope="session")
def redis_session() -> Iterator[RunningRedis]:
    """The session's Redis: on a socket of this user's, no port, or guarded."""
    if GUARDED:
        with guarded_redis() as guarded:
            yield guarded
        return
    with tempfile.TemporaryDirectory(prefix="marquee-test-") as folder:
        socket = Path(folder) / "redis.sock"
        listening = ["--port", "0", "--unixsocket", str(socket), "--unixsocketperm", "700"]
        with _running(Path(folder), find_server(), listening, lambda: redis.Redis(unix_socket_path=str(socket))):
            yield RunningRedis(f"unix://{socket}")


@contextmanager
def _running(
    folder: Path, server: Path, listening: Sequence[str], connect: Callable[[], redis.Redis]
) -> Iterator[None]:
    process = subprocess.Popen(
        [
            # Ends with this process, also if that is killed.
            *(sys.executable, "-I", child_process.__file__, str(os.getpid())),
            *(str(server), *listening),
            *("--dir", str(folder), "--save", "", "--appendonly", "no", "--logfile", str(folder / "log")),
        ]
    )
    try:
        with connect() as client:
            for _ in range(500):
                try:
                    client.ping()
                    break
                except redis.exceptions.ConnectionError:
                    assert process.poll() is None, (folder / "log").read_text()
                    time.sleep(0.02)
            else:
                raise AssertionError(f"Redis does not answer: {(folder / 'log').read_text()}")
        yield
    finally:
        process.terminate()
        process.wait(20)


@pytest.fixture(scope="session")
def redis_session_cluster() -> Iterator[Cluster]:
    """The session's cluster."""
    with running_cluster(guarded=GUARDED) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def own_cluster() -> Iterator[Cluster]:
    """A cluster of the test file's own, which may lose servers and whose slots may move."""
    with running_cluster() as cluster:
        yield cluster


@pytest.fixture
def running_redis(request: pytest.FixtureRequest) -> RunningRedis:
    """An empty Redis."""
    if ON_CLUSTER:
        cluster: Cluster = request.getfixturevalue("redis_session_cluster")
        cluster.flush()
        return RunningRedis(cluster.url, cluster.guard)
    running: RunningRedis = request.getfixturevalue("redis_session")
    with _connect(running) as client:
        client.flushall()
    return running


@pytest.fixture
def redis_url(running_redis: RunningRedis) -> str:
    """Where an empty Redis listens."""
    return running_redis.url


@pytest.fixture
def raw_redis(running_redis: RunningRedis) -> Iterator[Any]:
    """A blocking connection to the same Redis, as one who may do anything, to look at what lies in it."""
    with _connect(running_redis) as client:
        yield client


def _connect(running: RunningRedis) -> Any:
    arguments = {} if running.guard is None else running.guard.client_arguments()
    arguments.pop("ssl", None)  # the URL says so
    return (redis.RedisCluster if ON_CLUSTER else redis.Redis).from_url(running.url, **arguments)


@pytest.fixture
def redis_settings(running_redis: RunningRedis) -> dict[str, Any]:
    """What feature_service has to be told of that Redis."""
    guarded = {} if running_redis.guard is None else running_redis.guard.settings()
    return {"redis_url": SecretStr(running_redis.url), "redis_cluster": ON_CLUSTER, **guarded}


@pytest.fixture
def one_server() -> None:
    """Skips a test that is about one server where there is a cluster."""
    if ON_CLUSTER:
        pytest.skip("about one server, and MARQUEE_TEST_REDIS is cluster")
