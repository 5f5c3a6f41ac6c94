"""Several workers serve on one port: what dies comes back, what is counted adds up, and all leave together."""

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import grpc
import pytest
from marquee.client.channel import open_sync_channel
from marquee.v1 import model_service_pb2 as pb
from marquee.v1.model_service_pb2_grpc import ModelServiceStub

from deploy.local.processes import ServiceProcess, StackError, free_address
from tests.integration.stack.running_stack import RunningStack
from tests.scraping import Scrape, read_page, scrape
from two_tower.registry import Registry

pytestmark = pytest.mark.timeout(900)
NUM_WORKERS = 2
NUM_CALLERS = 16
"""That one of two workers is given all their connections happens once in 2 ** 15 times."""
LABEL = "workers"
LONG_S = 120.0


class Service:
    """A model_service of several workers."""

    def __init__(self, process: ServiceProcess, metrics: str, question: pb.PredictRatingRequest) -> None:
        self.process = process
        self.metrics = metrics
        self._question = question

    def versions(self) -> list[str]:
        """Asks over many new connections; returns who answered."""
        with ExitStack() as open_channels:
            options = [("grpc.use_local_subchannel_pool", 1)]
            channels = [
                open_channels.enter_context(open_sync_channel(self.process.address, options=options))
                for _ in range(NUM_CALLERS)
            ]
            answers = [ModelServiceStub(channel).PredictRating(self._question, timeout=LONG_S) for channel in channels]
        return [answer.model_version for answer in answers]

    def scrape(self) -> Scrape:
        """Returns the metrics of all workers."""
        return scrape(self.metrics)

    def ready_workers(self) -> set[str]:
        """Returns the places of those who serve."""
        samples = self.scrape().samples("marquee_process_ready")
        return {sample.labels["worker"] for sample in samples if sample.value == 1}

    def num_answered(self) -> float:
        """Returns how many ratings were asked for and told, by the metrics."""
        return self.scrape().total("marquee_rpc_finished_total", method="PredictRating", code="OK")

    def pids(self) -> list[int]:
        """Returns the processes of the workers, the newest last."""
        started = [line["pid"] for line in _lines(self.process.log) if line["event"] == "worker_started"]
        return [pid for pid in started if _is_running(pid)]


@pytest.fixture(scope="module")
def service(running: RunningStack, registry: Registry, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """One that serves, with all its workers."""
    registry.set_label(LABEL, running.checkpoints["two-tower-history"].version, now=datetime.now(UTC))
    metrics, address = free_address(), free_address()
    settings = _settings(running, registry, address) | {"MODEL_METRICS_LISTEN": metrics}
    log = tmp_path_factory.mktemp("workers") / "model_service.log"
    question = pb.PredictRatingRequest(
        user=pb.UserSelector(user_id=running.data.user_ids[0]), movie_id=running.data.movies.movie_ids[0]
    )
    with ServiceProcess("model_service", address, settings, log) as process:
        process.wait_until_serving(LONG_S)
        service = Service(process, metrics, question)
        _until(lambda: len(service.ready_workers()) == NUM_WORKERS)
        yield service


def _settings(running: RunningStack, registry: Registry, address: str) -> dict[str, str]:
    return {
        "MODEL_LISTEN": address,
        "MODEL_WORKERS": str(NUM_WORKERS),
        "MODEL_ADMIN_LISTEN": "off",
        "MODEL_DEVICE": "cpu",
        "MODEL_REGISTRY": str(registry.path),
        "MODEL_LABEL": LABEL,
        "MODEL_REGISTRY_POLL_S": "0.2",
        "MODEL_FEATURE_SERVICE": running.feature_address,
    }


def _lines(log: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in log.read_text().splitlines() if line.startswith("{")]


def _is_running(pid: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[:1]
    except FileNotFoundError:
        return False


def _until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + LONG_S
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_callers_are_spread_over_workers_and_counted_once(service):
    """Every worker answers some, and the page of metrics holds the sum."""
    before = service.num_answered()

    service.versions()

    assert service.num_answered() - before == NUM_CALLERS
    batches = {sample.labels["worker"] for sample in service.scrape().samples("marquee_model_batches_in_flight")}
    assert batches == {str(place) for place in range(NUM_WORKERS)}
    assert set(json.loads(read_page(service.metrics, "/slow"))) == {"threshold_ms", "num_slow", "requests"}


def test_a_label_that_moves_is_followed_by_every_worker(service, running, registry):
    """Whoever is asked answers from the new model in the end."""
    wanted = running.checkpoints["marquee"].version

    registry.set_label(LABEL, wanted, now=datetime.now(UTC))

    _until(lambda: set(service.versions()) == {wanted})


def test_a_worker_that_is_killed_comes_back_and_its_counts_stay(service):
    """Meanwhile the others answer; what it had counted is still in the sums."""
    service.versions()
    counted = service.num_answered()
    victim = service.pids()[0]

    os.kill(victim, signal.SIGKILL)
    _until(lambda: not _is_running(victim))
    versions = service.versions()
    _until(lambda: len(service.ready_workers()) == NUM_WORKERS)

    assert len(versions) == NUM_CALLERS
    assert victim not in service.pids()
    assert service.num_answered() >= counted + NUM_CALLERS
    assert service.scrape().total("marquee_process_worker_deaths_total") == 1


def test_a_port_that_somebody_has_is_not_shared_with_him(service, running, registry, tmp_path):
    """A second service on the port of a first would be asked half of what is meant for that."""
    settings = _settings(running, registry, service.process.address)
    second = ServiceProcess("model_service", service.process.address, settings, tmp_path / "second.log")

    with pytest.raises(StackError, match=r"status 2(?s:.*)cannot listen"), second:
        _until(lambda: _has_ended(second))


def test_all_workers_leave_when_the_service_is_told_to(service):
    """What was taken is answered, and no process is left."""
    pids = service.pids()

    service.process.stop()

    assert len(pids) == NUM_WORKERS
    assert not any(_is_running(pid) for pid in pids)
    stopped = [line for line in _lines(service.process.log) if line["event"] == "stopped"]
    assert len(stopped) == NUM_WORKERS
    with open_sync_channel(service.process.address) as channel, pytest.raises(grpc.FutureTimeoutError):
        grpc.channel_ready_future(channel).result(timeout=0.5)


def _has_ended(process: ServiceProcess) -> bool:
    try:
        process.raise_if_ended()
    except StackError:
        return True
    return False
