"""Two replicas of each service behind HAProxy are restarted one after the other, and no caller sees a failure."""

import asyncio
import signal
from collections import Counter
from pathlib import Path

import pytest
from marquee.client.channel import open_channel, open_sync_channel
from marquee.v1 import feature_service_pb2_grpc

from tests.feature_service import messages as make
from tests.logged_process import LoggedProcess
from tests.proxy.callers import Caller
from tests.proxy.haproxy import Proxy, haproxy
from tests.redis_cluster import free_ports
from trainer.publishing import publish
from trainer.readers.read_options import ReadOptions
from trainer.snapshot import take_snapshot
from trainer.synthesis import SynthesisPlan, write_synthetic
from trainer.training import Request, train
from two_tower.registry import Registry

NAMES = ("features-1", "features-2", "models-1", "models-2")
# Each is up for so long before the next one goes, so that calls spread over both again.
BETWEEN_S = 0.5
# As docs/operations.md has it.
NOTICE_S, NEVER_S = "2", "2000000"
USERS_A_CALL = 50


class Replica:
    """A service on an address of its own, that leaves and comes back as an operator has it."""

    def __init__(self, module: str, folder: Path, variables: dict[str, str]) -> None:
        self._started = (module, folder, variables)
        self.process = LoggedProcess(*self._started)

    def leave(self) -> int:
        """Sends SIGTERM; returns the exit status."""
        return self.process.stop(signal.SIGTERM)

    def come_back(self) -> None:
        """Starts it where it was."""
        self.process = LoggedProcess(*self._started)


@pytest.fixture
def trained(tmp_path):
    """A small data set and a registry with a checkpoint of it."""
    write_synthetic(SynthesisPlan(num_users=30, num_movies=60, num_ratings=600, seed=7), tmp_path / "data")
    snapshot = take_snapshot(str(tmp_path / "data"), ReadOptions())
    request = Request(model="two-tower-history", options=["epochs=1"], reported=False, calibrated=False)
    train(snapshot, Registry(tmp_path / "registry"), request)
    return snapshot.data


@pytest.fixture
def addresses():
    """Where replicas listen, by name."""
    return {name: f"127.0.0.1:{port}" for name, port in zip(NAMES, free_ports(len(NAMES)), strict=True)}


@pytest.fixture
def proxy(addresses, tmp_path):
    features, models = ([addresses[f"{kind}-{number}"] for number in (1, 2)] for kind in ("features", "models"))
    with haproxy(features, models, tmp_path / "haproxy.log") as running:
        yield running


@pytest.fixture
def replicas(addresses, proxy, trained, running_redis, one_server, tmp_path):
    """All of them, each told to read features through the proxy, and set as docs/operations.md has it behind one."""
    started = {}
    for name, address in addresses.items():
        if name.startswith("features"):
            variables = {
                "FEATURE_LISTEN": address,
                "FEATURE_REDIS_URL": running_redis.url,
                "FEATURE_MAX_CONNECTION_AGE_S": NEVER_S,
                "FEATURE_LEAVE_NOTICE_S": NOTICE_S,
                "FEATURE_MAX_PENDING_CALLS": "1000",
            }
            started[name] = Replica("feature_service", tmp_path, variables)
        else:
            variables = {
                "MODEL_LISTEN": address,
                "MODEL_REGISTRY": str(tmp_path / "registry"),
                "MODEL_DEVICE": "cpu",
                "MODEL_FEATURE_SERVICE": proxy.features,
                "MODEL_MAX_CONNECTION_AGE_S": NEVER_S,
                "MODEL_LEAVE_NOTICE_S": NOTICE_S,
                # A start on a busy machine takes it for a slow one.
                "MODEL_MAX_PENDING_CALLS": "1000",
                "OMP_NUM_THREADS": "1",
            }
            started[name] = Replica("model_service", tmp_path, variables)
    yield started
    for replica in started.values():
        if replica.process.process.poll() is None:
            replica.leave()


async def fill(proxy: Proxy, trained) -> None:
    """Publishes the data set through the proxy."""
    with open_sync_channel(proxy.features) as channel:
        await asyncio.to_thread(publish, channel, trained, trained.interactions)


@pytest.mark.proxy
async def test_a_rolling_restart_fails_no_call(proxy, replicas, trained):
    """Every call of a caller with the documented retry policy is answered, and every acknowledged event is stored."""
    await asyncio.to_thread(proxy.wait_for, {"features-1", "features-2"})
    await fill(proxy, trained)
    await asyncio.to_thread(proxy.wait_for, set(NAMES))
    movie_ids = list(trained.movies.movie_ids)
    patient = [Caller(f"patient-{number}", proxy, movie_ids, retries=True) for number in range(4)]
    hasty = [Caller(f"hasty-{number}", proxy, movie_ids, retries=False) for number in range(2)]
    stop = asyncio.Event()
    exits = {}

    async with asyncio.TaskGroup() as calling:
        for caller in (*patient, *hasty):
            calling.create_task(caller.run(stop))
        try:
            for name, replica in replicas.items():
                await asyncio.sleep(BETWEEN_S)
                exits[name] = await asyncio.to_thread(replica.leave)
                await asyncio.to_thread(proxy.wait_for, set(NAMES) - {name})
                replica.come_back()
                await asyncio.to_thread(proxy.wait_for, set(NAMES))
            await asyncio.sleep(BETWEEN_S)
        finally:
            stop.set()

    calls, raw = (sum(caller.num_calls for caller in callers) for callers in (patient, hasty))
    failed, raw_failed = (
        sum((Counter(caller.failures) for caller in callers), Counter()) for callers in (patient, hasty)
    )
    print(f"\nrolling restart: with the documented retry policy {calls} calls, {failed.total()} failed")
    print(f"rolling restart: without retries {raw} calls, {raw_failed.total()} failed: {dict(raw_failed)}")
    print("\n".join(sorted({text for caller in hasty for text in caller.texts})))
    assert exits == dict.fromkeys(NAMES, 0)
    assert [text for caller in patient for text in caller.texts] == []
    assert all(caller.ended[rpc, "OK"] > 0 for caller in patient for rpc in ("TopK", "BatchGetUsers", "WriteEvents"))
    # What a hasty caller sees is what callers are told to repeat, and nothing else.
    assert {status for _, status in raw_failed} <= {"UNAVAILABLE"}
    async with open_channel(proxy.features) as channel:
        features = feature_service_pb2_grpc.FeatureServiceStub(channel)
        written = {user: movies for caller in (*patient, *hasty) for user, movies in caller.written.items()}
        # How many users there are depends on the machine; a call may ask for no more than so many whole histories.
        parts = [list(written)[start : start + USERS_A_CALL] for start in range(0, len(written), USERS_A_CALL)]
        replies = [await features.BatchGetUsers(make.users(*part)) for part in parts]
    stored = {user.user_id: {entry.movie_id for entry in user.history} for reply in replies for user in reply.users}
    assert {user: movies - stored[user] for user, movies in written.items() if movies - stored[user]} == {}
