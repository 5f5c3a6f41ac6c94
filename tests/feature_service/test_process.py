"""feature_service as a process: starts, waits for Redis, drains, leaves nothing behind."""

import signal
import subprocess
import sys

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from marquee.client.errors import read_error
from marquee.v1 import feature_service_pb2 as pb2
from marquee.v1 import feature_service_pb2_grpc

from feature_service.embedded_redis import find_server
from feature_service.settings import FeatureSettings
from service_runtime.settings import SettingsError
from tests.feature_process import FeatureProcess
from tests.feature_service import messages as make
from tests.feature_service.test_embedded_redis import running_servers

SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING


pytestmark = pytest.mark.usefixtures("one_server")


@pytest.fixture
def start(tmp_path):
    """Starts services and kills what a failed test left."""
    started: list[FeatureProcess] = []

    def start_one(**settings: str) -> FeatureProcess:
        started.append(FeatureProcess(tmp_path, **settings))
        return started[-1]

    yield start_one
    for service in started:
        if service.process.poll() is None:
            service.process.kill()
            service.process.wait()


def health(channel: grpc.Channel, service: str = "") -> int:
    return health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(service=service), timeout=5).status


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_it_serves_drains_and_keeps_its_data(start, tmp_path):
    """With an embedded Redis: SERVING, SIGTERM exits 0, no process is left, and the next start has the data."""
    first = start(FEATURE_REDIS_URL="embedded")
    first.wait_for("dependency_found", dependency="redis")
    with grpc.insecure_channel(first.address()) as channel:
        assert health(channel) == health(channel, "marquee.v1.FeatureService") == SERVING
        stub = feature_service_pb2_grpc.FeatureServiceStub(channel)
        stub.BatchUpsertMovies(make.movies(1))
        written = stub.WriteEvents(make.write(make.event(rating=4)))
    assert "a power loss loses what was written in the last second" in first.wait_for("durability")["promise"]

    status = first.stop()

    assert status == 0
    assert running_servers(tmp_path) == []
    second = start(FEATURE_REDIS_URL="embedded")
    second.wait_for("dependency_found")
    with grpc.insecure_channel(second.address()) as channel:
        user = feature_service_pb2_grpc.FeatureServiceStub(channel).BatchGetUsers(make.users("u")).users[0]
    assert (user.user_version, user.history[0].rating) == (written.results[0].user_version, 4)
    assert second.stop(signal.SIGINT) == 0


@pytest.mark.skipif(sys.platform != "linux", reason="asks Linux to end the child with its parent")
def test_a_killed_service_leaves_no_server(start, tmp_path):
    """After SIGKILL the embedded Redis ends too, and the next start finds its folder free and its data whole."""
    service = start(FEATURE_REDIS_URL="embedded")
    service.wait_for("dependency_found")
    with grpc.insecure_channel(service.address()) as channel:
        feature_service_pb2_grpc.FeatureServiceStub(channel).BatchUpsertUsers(make.upsert_user(age=30))

    service.stop(signal.SIGKILL)

    again = start(FEATURE_REDIS_URL="embedded")
    again.wait_for("dependency_found")
    with grpc.insecure_channel(again.address()) as channel:
        user = feature_service_pb2_grpc.FeatureServiceStub(channel).BatchGetUsers(make.users("u")).users[0]
    assert user.profile.age == 30
    assert again.stop() == 0
    assert running_servers(tmp_path) == []


def test_an_absent_redis_is_waited_for(start, tmp_path):
    """NOT_SERVING with the reason, requests UNAVAILABLE with a time to come back, SERVING once Redis is there."""
    socket = tmp_path / "late.sock"
    service = start(FEATURE_REDIS_URL=f"unix://{socket}")
    reason = service.wait_for("dependency_lost")["reason"]
    with grpc.insecure_channel(service.address()) as channel:
        stub = feature_service_pb2_grpc.FeatureServiceStub(channel)
        assert health(channel) == NOT_SERVING
        with pytest.raises(grpc.RpcError) as raised:
            stub.GetStoreInfo(pb2.GetStoreInfoRequest(), timeout=5)
        error = read_error(raised.value)

        redis = subprocess.Popen(
            [find_server(), "--port", "0", "--unixsocket", str(socket), "--save", "", "--dir", str(tmp_path)],
            stdout=subprocess.DEVNULL,
        )
        try:
            service.wait_for("dependency_found")
            assert health(channel) == SERVING
            assert stub.GetStoreInfo(pb2.GetStoreInfoRequest(), timeout=5).history_window == 200
        finally:
            redis.kill()
            redis.wait()
        lost = [line for line in service.events() if line["event"] == "dependency_lost"]

    assert reason == "Redis cannot be reached"
    assert (error.code, error.reason) == (grpc.StatusCode.UNAVAILABLE, "REDIS_UNAVAILABLE")
    assert error.retry_after_s > 0
    assert len(lost) == 1  # said once, not at every try
    assert service.stop() == 0


def test_wrong_settings_exit_2(start):
    """All mistakes are named, the process ends with status 2."""
    service = start(FEATURE_HISTORY_WINDOW="0", FEATURE_REDIS_ULR="x", FEATURE_REDIS_URL="http://secret@host")

    assert service.process.wait(30) == 2
    said = service.said()
    assert "FEATURE_REDIS_ULR is not a setting; did you mean FEATURE_REDIS_URL?" in said
    assert "FEATURE_HISTORY_WINDOW: Input should be greater than or equal to 1" in said
    assert "FEATURE_REDIS_URL: Value error, must be `embedded` or begin with redis://" in said
    assert "secret" not in said


@pytest.mark.parametrize("url", ["redis://:secret@host:port/0", "redis://:secret@[host:1/0", "http://:secret@host"])
def test_a_url_that_is_none_is_refused_without_its_password(monkeypatch, url):
    """The process ends with one line that says what would be right."""
    monkeypatch.setenv("FEATURE_REDIS_URL", url)

    with pytest.raises(SettingsError, match=r"FEATURE_REDIS_URL: .*redis://") as raised:
        FeatureSettings.load()

    assert "secret" not in str(raised.value)


def test_a_taken_port_exits_2(start):
    """A second service on the same port says so and ends."""
    first = start(FEATURE_REDIS_URL="unix:///none")

    second = start(FEATURE_REDIS_URL="unix:///none", FEATURE_LISTEN=first.address())

    assert second.process.wait(30) == 2
    assert f"cannot listen on {first.address()}" in second.said()
    assert first.stop() == 0
