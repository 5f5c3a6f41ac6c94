"""A pytest plugin: one real Redis a session, empty for every test that asks for it.

With MARQUEE_TEST_REDIS=cluster it is a real cluster; tests that are about one server are then skipped.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from pydantic import SecretStr

from feature_service import child_process
from feature_service.embedded_redis import find_server
from tests.redis_cluster import Cluster

ON_CLUSTER = os.environ.get("MARQUEE_TEST_REDIS") == "cluster"


@pytest.fixture(scope="session")
def redis_session_url() -> Iterator[str]:
    """Where the session's Redis listens: a socket of this user's, no port."""
    folder = Path(tempfile.mkdtemp(prefix="marquee-test-"))
    socket = folder / "redis.sock"
    process = subprocess.Popen(
        [
            # Ends with this process, also if that is killed.
            *(sys.executable, "-I", child_process.__file__, str(os.getpid())),
            *(str(find_server()), "--port", "0", "--unixsocket", str(socket), "--unixsocketperm", "700"),
            *("--dir", str(folder), "--save", "", "--appendonly", "no", "--logfile", str(folder / "log")),
        ]
    )
    try:
        with redis.Redis(unix_socket_path=str(socket)) as client:
            for _ in range(500):
                try:
                    client.ping()
                    break
                except redis.exceptions.ConnectionError:
                    assert process.poll() is None, (folder / "log").read_text()
                    time.sleep(0.02)
        yield f"unix://{socket}"
    finally:
        process.terminate()
        process.wait(20)
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def redis_session_cluster() -> Iterator[Cluster]:
    """The session's cluster."""
    cluster = Cluster()
    yield cluster
    cluster.stop()


@pytest.fixture
def redis_url(request: pytest.FixtureRequest) -> str:
    """Where an empty Redis listens."""
    if ON_CLUSTER:
        cluster: Cluster = request.getfixturevalue("redis_session_cluster")
        cluster.flush()
        return cluster.url
    url: str = request.getfixturevalue("redis_session_url")
    with redis.Redis.from_url(url) as client:
        client.flushall()
    return url


@pytest.fixture
def raw_redis(redis_url: str) -> Iterator[Any]:
    """A blocking connection to the same Redis, to look at what lies in it."""
    with (redis.RedisCluster if ON_CLUSTER else redis.Redis).from_url(redis_url) as client:
        yield client


@pytest.fixture
def redis_settings(redis_url: str) -> dict[str, Any]:
    """What feature_service has to be told of that Redis."""
    return {"redis_url": SecretStr(redis_url), "redis_cluster": ON_CLUSTER}


@pytest.fixture
def one_server() -> None:
    """Skips a test that is about one server where there is a cluster."""
    if ON_CLUSTER:
        pytest.skip("about one server, and MARQUEE_TEST_REDIS is cluster")
