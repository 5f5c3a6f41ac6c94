"""Over TLS and under the ACL of deploy/redis everything works, and nothing else is possible."""

import asyncio
import datetime
import hashlib
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
import redis
import trustme
from marquee.client.channel import open_channel
from marquee.client.errors import CallError, read_error
from marquee.v1 import feature_service_pb2 as pb2
from marquee.v1 import feature_service_pb2_grpc
from pydantic import SecretStr
from redis import exceptions

from feature_service import scripts as scripts_of_the_store
from feature_service.__main__ import serving
from feature_service.settings import FeatureSettings
from service_runtime.settings import SettingsError
from tests.feature_server import until_ready
from tests.feature_service import messages as make
from tests.redis_cluster import NUM_MASTERS, Cluster, running_cluster
from tests.redis_guard import RULES, RedisGuard
from tests.redis_server import ON_CLUSTER

pytestmark = [
    pytest.mark.timeout(120),
    pytest.mark.skipif(ON_CLUSTER, reason="starts servers of its own, a cluster too"),
]


@pytest.fixture(scope="module")
def guarded_cluster() -> Iterator[Cluster]:
    """Six such servers."""
    with running_cluster(guarded=True) as cluster:
        yield cluster


@pytest.fixture
def guard(guarded) -> RedisGuard:
    return guarded.guard


@pytest.fixture
def port(guarded) -> int:
    return int(guarded.url.rpartition(":")[2])


@asynccontextmanager
async def service(url: str, settings: dict) -> AsyncIterator[Any]:
    """Runs a service that may never become ready; its stub can wait until it is."""
    told = FeatureSettings(redis_url=SecretStr(url), listen="127.0.0.1:0", drain_timeout_s=1.0, **settings)
    async with serving(told) as server, open_channel(server.address) as channel:
        stub: Any = feature_service_pb2_grpc.FeatureServiceStub(channel)
        stub.ready = lambda: until_ready(channel, 60)
        yield stub


async def refusal(url: str, settings: dict) -> CallError:
    """Returns why a service that must not get at Redis says that it does not."""
    async with service(url, settings) as stub:
        return await reason(stub)


async def reason(stub) -> CallError:
    """Returns why a service does not get at Redis, once it has asked."""
    async with asyncio.timeout(60):
        while True:
            try:
                await stub.BatchUpsertUsers(make.upsert_user("u", age=1), timeout=20)
            except grpc.aio.AioRpcError as failed:
                error = read_error(failed)
                if "not asked yet" not in error.message:
                    return error
            await asyncio.sleep(0.02)


async def call_every_rpc(stub) -> set[str]:
    """Calls every RPC of the service and returns their names."""
    feed = stub.StreamChanges(pb2.StreamChangesRequest())
    while not (await feed.read()).reset:
        pass
    await stub.BatchUpsertMovies(make.movies(20))
    await stub.BatchUpsertUsers(make.upsert_user("u", age=30))
    written = await stub.WriteEvents(make.write(*(make.event(f"e{i}", f"u{i}", f"m{i % 20}", 4.0) for i in range(40))))
    assert {row.status for row in written.results} == {pb2.EVENT_STATUS_APPLIED}
    await stub.ImportHistories(make.import_histories({f"i{i}": [("m1", 3.0, 500)] for i in range(40)}))
    users = (await stub.BatchGetUsers(make.users("u", "u1", "i1"))).users
    assert [len(user.history) for user in users] == [0, 1, 1]
    assert len((await stub.BatchGetMovies(pb2.BatchGetMoviesRequest(movie_ids=["m1"]))).movies) == 1
    assert len((await stub.ListMovies(pb2.ListMoviesRequest())).movies) == 20
    assert (await stub.DeleteUser(pb2.DeleteUserRequest(user_id="u1"))).deleted
    exported = await stub.ExportEvents(pb2.ExportEventsRequest(page_size=640))
    await stub.RegisterExport(pb2.RegisterExportRequest(name="test", position=exported.next_position))
    await stub.RegisterExport(pb2.RegisterExportRequest(name="test"))
    assert (await stub.GetStoreInfo(pb2.GetStoreInfoRequest())).store_epoch
    changed: set[str] = set()
    while not {"u", "u1", "i1"} <= changed:
        changed |= set((await feed.read()).user_ids)
    feed.cancel()
    return {
        *("StreamChanges", "BatchUpsertMovies", "BatchUpsertUsers", "WriteEvents", "ImportHistories", "BatchGetUsers"),
        *("BatchGetMovies", "ListMovies", "DeleteUser", "ExportEvents", "RegisterExport", "GetStoreInfo"),
    }


# How it is configured would tell more than that: passwords of replicas, for one.
ASKED_IN_VAIN = {"config|get"}


def refused(client: redis.Redis) -> set[str]:
    """Returns what a server has refused to its users."""
    return {str(entry["object"]) for entry in client.acl_log()}


async def test_every_rpc_works_under_the_acl(guarded, guard, port):
    """feature_service gets what it needs, and asks for nothing that it is refused."""
    with guard.client(port) as client:
        client.acl_log_reset()

    async with service(guarded.url, guard.settings()) as stub:
        await stub.ready()
        called = await call_every_rpc(stub)

    assert called == {method.name for method in pb2.DESCRIPTOR.services_by_name["FeatureService"].methods}
    with guard.client(port) as client:
        assert refused(client) <= ASKED_IN_VAIN


async def test_every_rpc_works_under_the_acl_of_a_cluster(guarded_cluster):
    """As on one server, with replicas that have to acknowledge, between servers that speak TLS too."""
    guard = guarded_cluster.guard
    settings = {**guard.settings(), "redis_cluster": True, "write_ack": "replica"}
    for number in range(2 * NUM_MASTERS):
        with guarded_cluster.server(number) as client:
            client.acl_log_reset()

    async with service(guarded_cluster.url, settings) as stub:
        await stub.ready()
        await call_every_rpc(stub)

    for number in range(2 * NUM_MASTERS):
        with guarded_cluster.server(number) as client:
            assert refused(client) <= ASKED_IN_VAIN


def test_scripts_do_only_what_the_acl_allows():
    """Also on branches that no test takes under it."""
    (rules,) = [line for line in RULES.read_text().splitlines() if line.startswith("user feature_service ")]
    scripts = [file.read_text() for file in Path(scripts_of_the_store.__file__).parent.glob("*.lua")]

    used = {command.lower() for script in scripts for command in re.findall(r'redis\.p?call\("([A-Z]+)"', script)}

    assert len(used) > 8
    assert {f"+{command}" for command in used} <= set(rules.split())


FORBIDDEN = [
    ("FLUSHALL",),
    ("FLUSHDB",),
    ("CONFIG", "GET", "*"),
    ("CONFIG", "SET", "appendonly", "no"),
    ("KEYS", "*"),
    ("SCAN", "0"),
    ("RANDOMKEY",),
    ("ACL", "LIST"),
    ("ACL", "SETUSER", "feature_service", "+@all"),
    ("CLIENT", "LIST"),
    ("CLIENT", "KILL", "TYPE", "normal"),
    ("MONITOR",),
    ("DEBUG", "SLEEP", "0"),
    ("SHUTDOWN", "NOSAVE"),
    ("REPLICAOF", "127.0.0.1", "1"),
    ("CLUSTER", "RESET"),
    ("SAVE",),
    ("SCRIPT", "FLUSH"),
    ("FUNCTION", "LIST"),
    ("MODULE", "LIST"),
    ("SWAPDB", "0", "1"),
    ("SUBSCRIBE", "news"),
    ("PUBLISH", "__redis__:invalidate", "x"),
    ("GET", "other"),
    ("SET", "other", "x"),
    ("MGET", "{p1}:v", "other"),
    ("SET", "{q1}:v", "x"),
    ("SET", "{p100}:v", "x"),
    ("EVAL", "return redis.call('SET', KEYS[1], 'x')", "1", "other"),
    ("EVAL", "return redis.call('SET', 'other', 'x')", "0"),
    ("EVAL", "return redis.call('FLUSHALL')", "0"),
    ("EVAL", "return redis.call('CONFIG', 'GET', 'dir')", "0"),
]


@pytest.mark.parametrize("command", FORBIDDEN, ids=" ".join)
def test_feature_service_may_do_nothing_else(guard, port, command):
    """What it has no use for is refused, also from within a script, and to keys that are not ours."""
    with (
        guard.client(port, "feature_service") as client,
        pytest.raises(exceptions.ResponseError, match=r"no permissions|can't|not allowed"),
    ):
        client.execute_command(*command)


@pytest.mark.parametrize(
    ("user", "allowed", "refused"),
    [
        ("operator", ("CONFIG", "GET", "maxmemory"), ("CONFIG", "SET", "maxmemory", "1")),
        ("operator", ("DBSIZE",), ("FLUSHALL",)),
        ("operator", ("SCAN", "0"), ("KEYS", "*")),
        ("operator", ("SET", "{m}:test", "x"), ("SET", "other", "x")),
        ("operator", ("SLOWLOG", "GET"), ("EVAL", "return 1", "0")),
        ("operator", ("ACL", "LIST"), ("PSYNC", "?", "-1")),
        ("maintenance", ("EVAL", "return redis.call('DEL', KEYS[1])", "1", "{m}:test"), ("SHUTDOWN",)),
        ("maintenance", ("REPLCONF", "rdb-only", "1"), ("REPLICAOF", "127.0.0.1", "1")),
        ("replica", ("REPLCONF", "ACK", "0"), ("GET", "{m}:epoch")),
    ],
)
def test_other_users_have_their_own_rights(guard, port, user, allowed, refused):
    """Maintenance backs up and restores what is ours, an operator looks after Redis, a replica only replicates."""
    with guard.client(port, user) as client:
        if user != "replica":  # whom Redis tells nothing when he acknowledges
            client.execute_command(*allowed)

        with pytest.raises(exceptions.NoPermissionError):
            client.execute_command(*refused)


def test_nobody_gets_in_without_a_name(guard, port):
    """The default user is off; who asks for its health may ask for nothing else."""
    anonymous = guard.client_arguments(None, None)
    with (
        redis.Redis(host="127.0.0.1", port=port, **anonymous) as client,
        pytest.raises(exceptions.AuthenticationError),
    ):
        client.ping()
    prober = guard.client_arguments("health", "health")
    with redis.Redis(host="127.0.0.1", port=port, **prober) as client:
        assert client.ping()
        with pytest.raises(exceptions.NoPermissionError):
            client.get("{m}:epoch")


async def test_a_wrong_password_is_a_clear_reason(guarded, guard, tmp_path):
    """The service says that it is refused, and never with what."""
    wrong = tmp_path / "password"
    wrong.write_text("canary-password")

    error = await refusal(guarded.url, {**guard.settings(), "redis_password_file": wrong})

    assert error.code is grpc.StatusCode.UNAVAILABLE
    assert error.message == "Redis refuses our user or password"


async def test_rules_that_lack_something_are_a_clear_reason(guarded, guard, port):
    """Found out before the first write is refused."""
    with guard.client(port) as client:
        client.execute_command("ACL", "SETUSER", "feature_service", "-eval")
    try:
        error = await refusal(guarded.url, guard.settings())
    finally:
        with guard.client(port) as client:
            client.acl_load()

    assert error.message == "Redis forbids our user a command or a key that we need"


async def test_a_certificate_of_somebody_else_is_not_trusted(guarded, guard, tmp_path):
    """Whoever signed it is not in the CA file, whatever the machine itself trusts."""
    other = tmp_path / "other.pem"
    trustme.CA().cert_pem.write_to_path(other)

    error = await refusal(guarded.url, {**guard.settings(), "redis_ca_file": other})

    assert error.message == "the certificate of Redis is signed by nobody in FEATURE_REDIS_CA_FILE"


@pytest.mark.parametrize(
    ("host", "days", "why"),
    [
        ("127.0.0.1", -1, "the certificate of Redis has expired"),
        ("10.0.0.1", 1, "the certificate of Redis is for another address than FEATURE_REDIS_URL names"),
    ],
)
async def test_a_certificate_that_is_not_valid_here_is_not_trusted(guarded, guard, port, host, days, why):
    """The reason says what is wrong with it; a good one is taken up without a restart."""
    guard.issue("bad", host, not_after=datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=days))
    with guard.client(port) as client:
        client.config_set(*_certificate(guard, "bad"))
        try:
            async with service(guarded.url, guard.settings()) as stub:
                error = await reason(stub)
                client.config_set(*_certificate(guard, "server"))
                await stub.ready()
        finally:
            client.config_set(*_certificate(guard, "server"))

    assert error.message == why


def _certificate(guard: RedisGuard, name: str) -> list:
    return ["tls-key-file", str(guard.file(f"{name}.key")), "tls-cert-file", str(guard.file(f"{name}.pem"))]


async def test_a_redis_that_wants_a_certificate_says_so(guarded, guard):
    """Without one the handshake fails, and the setting is named."""
    settings = {**guard.settings(), "redis_cert_file": None, "redis_key_file": None}

    # In TLS 1.3 a server refuses after the handshake: a busy machine may see the closed connection before the reason.
    for _ in range(20):
        error = await refusal(guarded.url, settings)
        if error.message != "Redis cannot be reached":
            break

    assert error.message == "Redis refuses our certificate, or asks for one: FEATURE_REDIS_CERT_FILE"


async def test_our_own_certificate_and_password_are_renewed(guarded, guard, port):
    """New files are taken up by the next connection; nothing is restarted."""
    guard.issue("client", "feature-service", not_after=datetime.datetime.now(datetime.UTC) - datetime.timedelta(1))
    old = guard.password("feature_service")
    async with service(guarded.url, guard.settings()) as stub:
        expired = await reason(stub)
        guard.issue("client", "feature-service")
        await stub.ready()

        with guard.client(port) as client:
            new = hashlib.sha256(b"new").hexdigest()
            client.execute_command("ACL", "SETUSER", "feature_service", f"#{new}", f"<{old}")
            guard.file("feature_service-password").write_text("new\n")
            client.execute_command("CLIENT", "KILL", "USER", "feature_service")
            await stub.ready()
            renewed = await stub.BatchUpsertMovies(make.movies(1))
            guard.file("feature_service-password").write_text(old)
            client.acl_load()

    assert expired.message == "Redis refuses our certificate, or asks for one: FEATURE_REDIS_CERT_FILE"
    assert len(renewed.catalogue_numbers) == 1


@pytest.mark.parametrize(
    ("variables", "problem"),
    [
        ({"PASSWORD": "a", "PASSWORD_FILE": "{password}"}, "are both set"),
        ({"URL": "redis://u:canary@h", "USER": "v"}, "need a FEATURE_REDIS_URL without user and password"),
        ({"URL": "rediss://h?ssl_cert_reqs=none"}, "its ssl_… go into"),
        ({"URL": "rediss://h", "CERT_FILE": "{cert}"}, "belong together"),
        ({"URL": "redis://h", "CA_FILE": "{ca}"}, "need a FEATURE_REDIS_URL of rediss://"),
        ({"URL": "rediss://h", "CA_FILE": "{password}"}, "a file holds no certificate or key in PEM"),
        ({"URL": "rediss://h", "CERT_FILE": "{cert}", "KEY_FILE": "{other}"}, "the key belongs to another certificate"),
        ({"URL": "rediss://h", "CA_FILE": "/none"}, "FEATURE_REDIS_CA_FILE: /none is no file that can be read"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(monkeypatch, guard, variables, problem):
    """Before anything starts, and without a word of a secret."""
    files = {
        "password": guard.file("operator-password"),
        "cert": guard.file("client.pem"),
        "other": guard.file("server.key"),
        "ca": guard.file("ca.pem"),
    }
    for name, value in variables.items():
        monkeypatch.setenv(f"FEATURE_REDIS_{name}", value.format(**files))

    with pytest.raises(SettingsError, match=problem) as raised:
        FeatureSettings.load()

    assert "canary" not in str(raised.value)
    assert guard.password("operator") not in str(raised.value)


def test_the_rules_hold_no_password(guard):
    """Passwords lie in files of their own, long and random; made again they stay, and the rules have their hashes."""
    rules = guard.file("users.acl").read_text()
    passwords = [guard.password(user) for user in ("feature_service", "replica", "operator")]

    assert len(set(passwords)) == 3
    assert all(len(password) == 64 and password not in rules for password in passwords)
    assert all(hashlib.sha256(password.encode()).hexdigest() in rules for password in passwords)
    assert Path(guard.folder).joinpath("users.acl").stat().st_mode & 0o777 == 0o644
