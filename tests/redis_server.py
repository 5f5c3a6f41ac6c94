"""A pytest plugin: one real Redis a session, empty for every test that asks for it."""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from feature_service import child_process
from feature_service.embedded_redis import find_server


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


@pytest.fixture
def redis_url(redis_session_url: str) -> str:
    """Where an empty Redis listens."""
    with redis.Redis.from_url(redis_session_url) as client:
        client.flushall()
    return redis_session_url


@pytest.fixture
def raw_redis(redis_url: str) -> Iterator[redis.Redis]:
    """A blocking connection to the same Redis, to look at what lies in it."""
    with redis.Redis.from_url(redis_url) as client:
        yield client
