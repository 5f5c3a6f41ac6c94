"""A Redis under the ACL of deploy/redis has after a restart what it had before it."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import redis

from tests.redis_cluster import until
from tests.redis_guard import RedisGuard

pytestmark = pytest.mark.timeout(60)


@contextmanager
def running(folder: Path) -> Iterator[redis.Redis]:
    """Runs a Redis as the compose file does, as feature_service sees it; kills it in the end."""
    socket = folder / "redis.sock"
    command = [RedisGuard.server(), "--port", "0", "--unixsocket", socket, "--dir", folder]
    command += ["--appendonly", "yes", "--appendfsync", "always", "--aclfile", folder / "users.acl"]
    process = subprocess.Popen([str(word) for word in command], stdout=subprocess.DEVNULL)
    password = (folder / "feature_service-password").read_text()
    try:
        with redis.Redis(unix_socket_path=str(socket), username="feature_service", password=password) as client:
            until(lambda: answers(client), "Redis answers")
            yield client
    finally:
        process.kill()
        process.wait()
        socket.unlink(missing_ok=True)


def answers(client: redis.Redis) -> bool:
    """Returns whether it has loaded its data."""
    try:
        return bool(client.ping())
    except redis.ConnectionError:
        return False


def test_what_scripts_wrote_is_there_after_a_kill(tmp_path: Path) -> None:
    """Redis 7.0 reads its file back as the default user, and leaves out transactions that this user may not do.

    Scripts are written down as transactions. So the default user has every right, and cannot log in.
    """
    RedisGuard(tmp_path)
    keys = ("{p1}:one", "{p1}:two")
    with running(tmp_path) as client:
        client.eval("redis.call('set', KEYS[1], 1) redis.call('set', KEYS[2], 2)", len(keys), *keys)

    with running(tmp_path) as client:
        assert client.mget(keys) == [b"1", b"2"]
