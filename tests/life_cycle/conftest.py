"""What the tests of the life cycle start."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chaos.checkpoints import Trained, train_small
from tests.chaos.faulty_proxy import FaultyProxy, to_unix
from tests.chaos.stack import Process
from tests.faults.victims import KilledRedis


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """A small registry and what it was trained on."""
    return train_small(tmp_path_factory.mktemp("trained"))


@pytest.fixture
def redis_server(tmp_path: Path) -> Iterator[KilledRedis]:
    """A Redis of the test's own."""
    folder = tmp_path / "redis"
    folder.mkdir()
    server = KilledRedis(folder, "everysec")
    yield server
    server.stop()


@pytest.fixture
def to_redis(redis_server: KilledRedis) -> Iterator[FaultyProxy]:
    """The way to it."""
    with FaultyProxy(to_unix(str(redis_server.socket))) as proxy:
        yield proxy


@pytest.fixture
def features(to_redis: FaultyProxy, tmp_path: Path) -> Iterator[Process]:
    """A feature_service behind that way; the test starts it."""
    settings = {"FEATURE_REDIS_URL": f"redis://{to_redis.address}", "FEATURE_REDIS_TIMEOUT_S": "30"}
    process = Process("feature_service", tmp_path, settings)
    yield process
    process.end()
