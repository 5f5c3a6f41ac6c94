"""What was backed up comes back as it was, under another epoch, by the commands that docs/operations.md names."""

import asyncio
import json
import os
import random
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import redis
from marquee.client.channel import open_channel
from marquee.client.errors import read_error
from marquee.client.user_version import UserVersion
from marquee.v1 import feature_service_pb2 as pb2
from marquee.v1 import feature_service_pb2_grpc
from pydantic import SecretStr

from feature_service import keys
from feature_service.__main__ import serving
from feature_service.backup import BackupError, restore_backup, take_backup
from feature_service.catalogue import Catalogue
from feature_service.embedded_redis import find_server
from feature_service.keys import user_keys
from feature_service.redis_link import RedisLink
from feature_service.settings import FeatureSettings
from feature_service.state_rewriting import rewrite_states
from feature_service.store import StoreMarks
from feature_service.store_content import Summary
from feature_service.value_format import StoredMovie
from service_runtime.errors import Unavailable
from service_runtime.server import StartError
from tests.feature_server import until_ready
from tests.feature_service import messages as make
from tests.redis_cluster import until
from tests.redis_guard import RedisGuard
from tests.redis_server import GUARDED, ON_CLUSTER, guarded_redis

DOCS = Path(__file__).parents[2] / "docs" / "operations.md"
NUM_USERS = 300


class Commands:
    """The operator's commands of one Redis, as they are documented."""

    def __init__(self, settings: Mapping[str, Any]) -> None:
        told = {
            f"FEATURE_{name.upper()}": value.get_secret_value() if isinstance(value, SecretStr) else str(value)
            for name, value in settings.items()
        }
        self._environment = {**os.environ, **told}

    async def run(self, command: str, **named: Path) -> subprocess.CompletedProcess[str]:
        """Runs the documented command line that begins so, with other folders in the place of those named there."""
        (line,) = re.findall(rf"^python -m feature_service {command}.*?(?=\s+#)", DOCS.read_text("utf-8"), re.MULTILINE)
        words = [sys.executable, *shlex.split(line)[1:]]
        for documented, folder in named.items():
            words[words.index(documented.replace("_", "/"))] = str(folder)
        return await asyncio.to_thread(
            subprocess.run, words, env=self._environment, capture_output=True, text=True, check=False, timeout=200
        )


@pytest.fixture
def commands(redis_settings, running_redis) -> Commands:
    """As whom the documents say: where Redis has users, that is another one than serves."""
    guard = running_redis.guard
    return Commands({**redis_settings, **({} if guard is None else guard.settings("maintenance"))})


@pytest.fixture
async def stub(feature_stub):
    """A store with some movies."""
    await feature_stub.BatchUpsertMovies(make.movies(50))
    return feature_stub


def flush(raw_redis) -> None:
    raw_redis.flushall(**({"target_nodes": redis.RedisCluster.PRIMARIES} if ON_CLUSTER else {}))


def ignore(_: Summary) -> None:
    """Is told of progress."""


async def exported(stub) -> Counter:
    """Returns how many events of each user the log holds."""
    page = await stub.ExportEvents(pb2.ExportEventsRequest())
    assert page.num_behind == 0
    indices = np.frombuffer(page.events.user_indices, "<u4").tolist()
    return Counter(page.events.user_ids[index] for index in indices)


async def histories(stub) -> dict[str, list]:
    users = []
    for first in range(0, NUM_USERS, 100):
        ids = [f"user {number}" for number in range(first, first + 100)]
        users += (await stub.BatchGetUsers(make.users(*ids))).users
    return {user.user_id: [user.history, user.profile, user.num_watched] for user in users if user.user_version}


async def fill(stub) -> None:
    """Writes a history and a profile of some users, and deletes one."""
    events = [make.event(f"e{n}", f"user {n % NUM_USERS}", f"m{n % 50}", n % 5, 1000 + n) for n in range(900)]
    await stub.WriteEvents(make.write(*events))
    await stub.BatchUpsertUsers(make.upsert_user("user 1", age=30))
    await stub.DeleteUser(pb2.DeleteUserRequest(user_id="user 2"))


async def test_a_backup_comes_back_as_it_was(stub, commands, raw_redis, redis_settings, tmp_path):
    """Users, catalogue, log and tombstones, under another epoch: versions and positions of before are refused."""
    await fill(stub)
    before, log = await histories(stub), await exported(stub)
    info = await stub.GetStoreInfo(pb2.GetStoreInfoRequest())
    version = (await stub.BatchGetUsers(make.users("user 1"))).users[0].user_version

    taken = await commands.run("backup", backups_today=tmp_path / "backup")
    flush(raw_redis)
    restored = await commands.run("restore", backups_today=tmp_path / "backup")

    assert (taken.returncode, taken.stderr.count("error")) == (0, 0), taken.stderr
    assert "299 users" in taken.stdout
    assert restored.returncode == 0, restored.stderr
    assert "is that of the backup" in restored.stdout
    settings = FeatureSettings(**redis_settings, listen="127.0.0.1:0", drain_timeout_s=1.0, max_pending_calls=1000)
    async with serving(settings) as server, open_channel(server.address) as channel:
        await until_ready(channel)
        again = feature_service_pb2_grpc.FeatureServiceStub(channel)
        after = await again.GetStoreInfo(pb2.GetStoreInfoRequest())
        assert (after.catalogue_id, after.num_movies) == (info.catalogue_id, 50)
        assert await histories(again) == before
        assert await exported(again) == log
        assert after.store_epoch != info.store_epoch
        user = (await again.BatchGetUsers(make.users("user 1"))).users[0]
        assert UserVersion.parse(user.user_version).epoch == after.store_epoch != UserVersion.parse(version).epoch
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await again.ExportEvents(pb2.ExportEventsRequest(position=info.log_position))
        assert read_error(refused.value).reason == "FOREIGN_EPOCH"
        late = await again.WriteEvents(make.write(make.event("late", "user 2", "m0", time_ms=5000)))
        assert late.results[0].status == pb2.EVENT_STATUS_STALE


async def test_a_backup_while_writes_go_on_is_of_one_moment(stub, link, raw_redis, redis_settings, tmp_path):
    """What users watched is what the log says they did, to the event, though thousands came meanwhile."""
    await fill(stub)
    running, num_written = True, 0

    async def keep_writing() -> None:
        nonlocal num_written
        while running:
            rows = [
                make.event(f"w{num_written + n}", f"user {n * 7 % NUM_USERS}", f"m{(num_written + n) % 50}", 3, n)
                for n in range(100)
            ]
            await stub.WriteEvents(make.write(*rows))
            num_written += len(rows)

    writing = asyncio.create_task(keep_writing())
    await asyncio.sleep(0)
    await take_backup(link, tmp_path / "backup", "now")
    running = False
    await writing
    flush(raw_redis)
    await restore_backup(link, tmp_path / "backup", ignore)

    assert num_written > 300
    settings = FeatureSettings(**redis_settings, listen="127.0.0.1:0", drain_timeout_s=1.0, max_pending_calls=1000)
    async with serving(settings) as server, open_channel(server.address) as channel:
        await until_ready(channel)
        again = feature_service_pb2_grpc.FeatureServiceStub(channel)
        page = await again.ExportEvents(pb2.ExportEventsRequest())
        watched: dict[str, set[str]] = {}
        columns = (
            np.frombuffer(column, "<u4").tolist() for column in (page.events.user_indices, page.events.movie_indices)
        )
        for user, movie in zip(*columns, strict=True):
            watched.setdefault(page.events.user_ids[user], set()).add(page.events.movie_ids[movie])
        del watched["user 2"]  # deleted; what came after it was written again or not
        found = await histories(again)
        assert {user: {entry.movie_id for entry in found[user][0]} for user in watched} == watched


async def test_nothing_is_put_where_something_is(stub, link, tmp_path):
    """A Redis that holds users is refused and stays as it is; so is a folder that exists."""
    await fill(stub)
    before = await histories(stub)
    await take_backup(link, tmp_path / "backup", "now")

    with pytest.raises(BackupError, match="restore into an empty one"):
        await restore_backup(link, tmp_path / "backup", ignore)
    with pytest.raises(BackupError, match="exists: name a new folder"):
        await take_backup(link, tmp_path / "backup", "now")

    assert await histories(stub) == before


async def test_a_damaged_backup_is_refused_whole(stub, link, raw_redis, tmp_path):
    """One bit of a snapshot, or a manifest that is none: nothing is written."""
    await fill(stub)
    folder = tmp_path / "backup"
    await take_backup(link, folder, "now")
    flush(raw_redis)
    snapshot = next(folder.glob("*.rdb"))
    content = bytearray(snapshot.read_bytes())
    content[len(content) // 2] ^= 1
    snapshot.write_bytes(content)

    with pytest.raises(BackupError, match=f"{snapshot.name} is damaged"):
        await restore_backup(link, folder, ignore)
    manifest = json.loads((folder / "manifest.json").read_text())
    for text in (json.dumps({**manifest, "format": 2}), "[]", "{"):
        (folder / "manifest.json").write_text(text)
        with pytest.raises(BackupError, match=r"has format 2, this build knows 1|is damaged"):
            await restore_backup(link, folder, ignore)

    assert raw_redis.get(keys.RESTORING) is None
    assert not any(raw_redis.scan_iter(match="{p*"))


async def test_a_snapshot_that_cannot_be_read_leaves_no_backup(stub, link, tmp_path, monkeypatch):
    """As with a redis-server that is older than the Redis: it says so, and there is no folder."""
    await fill(stub)
    server = tmp_path / "bin" / "redis-server"
    server.parent.mkdir()
    server.write_text("#!/bin/sh\n[ $1 = --version ] && echo v=7.0.0 || exit 1\n")
    server.chmod(0o755)
    monkeypatch.setenv("PATH", str(server.parent))

    with pytest.raises(StartError, match=r"cannot read .*server-\d.rdb"):
        await take_backup(link, tmp_path / "backup", "now")

    assert list(tmp_path.iterdir()) == [server.parent]


async def test_a_restore_that_was_broken_off_is_done_again(stub, link, raw_redis, tmp_path):
    """Until then nobody is served from half of it, and another backup is refused."""
    await fill(stub)
    before = await histories(stub)
    manifest = await take_backup(link, tmp_path / "backup", "now")
    flush(raw_redis)

    def stop(_: Summary) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        await restore_backup(link, tmp_path / "backup", stop)
    assert raw_redis.get(keys.RESTORING).decode() == manifest.backup_id
    raw_redis.set(keys.RESTORING, "another")
    with pytest.raises(BackupError, match="another backup"):
        await restore_backup(link, tmp_path / "backup", ignore)
    raw_redis.set(keys.RESTORING, manifest.backup_id)
    await restore_backup(link, tmp_path / "backup", ignore)

    assert raw_redis.get(keys.RESTORING) is None
    assert await histories(stub) == before


async def test_a_new_epoch_is_told_to_followers(stub, commands):
    """Caches drop everything, without a restart."""
    feed = stub.StreamChanges(pb2.StreamChangesRequest())
    before = await stub.GetStoreInfo(pb2.GetStoreInfoRequest())
    async with asyncio.timeout(30):
        while not (await feed.read()).live:
            pass

    done = await commands.run("new-epoch")

    after = await stub.GetStoreInfo(pb2.GetStoreInfoRequest())
    assert f"store_epoch is {after.store_epoch} now" in done.stdout
    assert after.store_epoch != before.store_epoch
    async with asyncio.timeout(30):
        while not (await feed.read()).reset:
            pass
    feed.cancel()


@pytest.mark.usefixtures("one_server")
async def test_a_file_that_was_copied_back_by_hand_needs_a_new_epoch(stub, raw_redis, tmp_path):
    """Another Redis on a copy of the snapshot has the old epoch, until the documented command has run."""
    await fill(stub)
    before = (await stub.GetStoreInfo(pb2.GetStoreInfoRequest())).store_epoch
    raw_redis.save()
    shutil.copyfile(Path(raw_redis.config_get("dir")["dir"]) / "dump.rdb", tmp_path / "dump.rdb")
    socket = tmp_path / "s"
    server = _start_server(socket)
    try:
        with redis.Redis(unix_socket_path=str(socket)) as client:
            until(lambda: _has_users(client), "the copy is loaded")
            assert client.get(keys.EPOCH).decode() == before

            done = await Commands({"redis_url": f"unix://{socket}"}).run("new-epoch")

            assert done.returncode == 0, done.stderr
            assert client.get(keys.EPOCH).decode() != before
    finally:
        server.kill()
        server.wait()


async def test_rewriting_reports_by_format(stub, commands):
    """Counted, then rewritten; here all are of the newest already."""
    await fill(stub)

    counted, written = await commands.run("rewrite --check"), await commands.run("rewrite --per-second")

    assert (counted.stderr, written.stderr) == ("", "")
    assert counted.stdout == written.stdout == "format 2: 299 users\n"


@pytest.mark.usefixtures("one_server")
async def test_the_maintenance_user_may_do_all_of_it(tmp_path):
    """With the ACL of deploy/redis and over TLS; it may not empty a Redis, nor may feature_service take backups."""
    with guarded_redis() as guarded:
        guard = guarded.guard
        link = RedisLink(guarded.url, timeout_s=20, max_connections=2, security=guard.security("maintenance"))
        ordinary = RedisLink(guarded.url, timeout_s=20, max_connections=2, security=guard.security())
        await link.probe()
        await ordinary.probe()
        await Catalogue(ordinary, StoreMarks(ordinary), random.Random(0)).change(lambda _: [StoredMovie("m")])
        await ordinary.command("SET", user_keys("u").state, bytes([1]) + bytes(39))
        await take_backup(link, tmp_path / "backup", "now")
        with pytest.raises(BackupError, match="NOPERM"):
            await take_backup(ordinary, tmp_path / "other", "now")
        with pytest.raises(Unavailable, match="forbids"):
            await link.command("FLUSHALL")
        with guard.client(int(guarded.url.rpartition(":")[2])) as client:
            client.flushall()

        _, restored, _ = await restore_backup(link, tmp_path / "backup", ignore)
        silent = {"clock": time.monotonic, "progress": lambda _: None}
        rewritten = await rewrite_states(link, write=True, per_second=1e9, **silent)

        assert restored.counts["users"] == rewritten.by_format.total() == 1
        await link.close()
        await ordinary.close()


def _start_server(socket: Path) -> subprocess.Popen[bytes]:
    """Starts the same program as the tests' Redis is: an older one does not read what a newer one has saved."""
    folder = str(socket.parent)
    program = RedisGuard.server() if GUARDED else find_server()
    command = [str(program), "--port", "0", "--unixsocket", str(socket), "--save", "", "--dir", folder]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL)


def _has_users(client) -> bool:
    try:
        return client.dbsize() > NUM_USERS
    except redis.exceptions.ConnectionError:
        return False
