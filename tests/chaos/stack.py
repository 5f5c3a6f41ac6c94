"""A real Redis, feature_service and model_service as processes, and the ways between them. Knows no fault."""

import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from marquee.client.channel import open_channel

from tests.chaos.checkpoints import Trained
from tests.chaos.faulty_proxy import FaultyProxy, to_tcp, to_unix
from tests.faults.victims import KilledRedis
from tests.feature_server import until_ready
from tests.logged_process import LoggedProcess
from tests.redis_cluster import free_ports
from tests.scraping import Scrape, scrape

REDIS_TIMEOUT_S = 1.0
FEATURE_TIMEOUT_S = 1.0
_READY_WITHIN_S = 180.0


class Process:
    """One of our services on a port that stays its own. Start it in the main thread: Linux ends it with its thread."""

    def __init__(self, module: str, folder: Path, settings: Mapping[str, str]) -> None:
        """Stores what to run, on a free port of this machine."""
        self._module = module
        self._folder = folder
        self.settings = dict(settings)
        self.running: LoggedProcess | None = None
        self.listen_on(f"127.0.0.1:{free_ports(1)[0]}")

    def listen_on(self, address: str) -> None:
        """Gives it another host:port, before it is started."""
        self.address = address
        self.settings["FEATURE_LISTEN" if self._module == "feature_service" else "MODEL_LISTEN"] = address

    def start(self) -> LoggedProcess:
        """Starts it; it is not ready yet."""
        self.running = LoggedProcess(self._module, self._folder, self.settings)
        return self.running

    @property
    def log(self) -> LoggedProcess:
        """The process that runs, to read what it says."""
        assert self.running is not None
        return self.running

    def send(self, number: int) -> None:
        """Sends it a signal."""
        self.log.process.send_signal(number)

    def kill(self) -> None:
        """Ends it as a machine does that fails."""
        self.log.stop(signal.SIGKILL)

    def in_flight(self, method: str) -> float:
        """Returns how many calls of a method are under way."""
        samples = self.metrics().samples("marquee_rpc_in_flight")
        return sum(sample.value for sample in samples if sample.labels["method"].endswith(method))

    def metrics(self) -> Scrape:
        """Returns what it tells Prometheus."""
        return scrape(str(self.log.wait_for("metrics_listening")["address"]))

    async def until_ready(self) -> None:
        """Waits until it says SERVING."""
        async with open_channel(self.address) as channel:
            await until_ready(channel, _READY_WITHIN_S)

    def stop(self) -> None:
        """Ends it as an operator does, whatever state a test left it in."""
        if self.running is None or self.running.process.poll() is not None:
            return
        self.send(signal.SIGCONT)
        status = self.running.stop()
        assert status == 0, self.running.said()

    def end(self) -> None:
        """Ends it at once, if it runs."""
        if self.running is not None and self.running.process.poll() is None:
            self.kill()


@dataclass(frozen=True)
class ChaosStack:
    """Everything that a drill breaks.

    Attributes:
        trained: What is served.
        redis: The Redis.
        to_redis: The way from feature_service to Redis.
        features: feature_service.
        to_features: The way to feature_service, of model_service and of callers.
        model: model_service.
    """

    trained: Trained
    redis: KilledRedis
    to_redis: FaultyProxy
    features: Process
    to_features: FaultyProxy
    model: Process


@contextmanager
def running_stack(
    folder: Path, disk: Path, trained: Trained, variables: Mapping[str, str] | None = None
) -> Iterator[ChaosStack]:
    """Runs a stack whose store holds what the model learnt from; it is not ready yet when the block begins.

    Args:
        folder: For logs.
        disk: For the data of Redis.
        trained: What to serve.
        variables: Further variables of both services.
    """
    redis_folder = disk / "redis"
    redis_folder.mkdir()
    redis = KilledRedis(redis_folder, "everysec")
    with FaultyProxy(to_unix(str(redis.socket))) as to_redis, FaultyProxy(to_tcp("127.0.0.1:1")) as to_features:
        feature_settings = {
            "FEATURE_REDIS_URL": f"redis://{to_redis.address}",
            "FEATURE_REDIS_TIMEOUT_S": str(REDIS_TIMEOUT_S),
        }
        features = Process("feature_service", folder, {**feature_settings, **(variables or {})})
        to_features.connect = to_tcp(features.address)
        model_settings = {
            "MODEL_FEATURE_SERVICE": to_features.address,
            "MODEL_FEATURE_TIMEOUT_S": str(FEATURE_TIMEOUT_S),
            "MODEL_REGISTRY": str(trained.registry.path),
            "MODEL_REGISTRY_POLL_S": "0.2",
            "MODEL_RETRY_S": "0.2",
            "MODEL_DEVICE": "cpu",
            "OMP_NUM_THREADS": "1",
        }
        model = Process("model_service", folder, {**model_settings, **(variables or {})})
        try:
            model.start()
            features.start().wait_for("dependency_found", dependency="redis")
            trained.publish_to(features.address)
            yield ChaosStack(trained, redis, to_redis, features, to_features, model)
            model.stop()
            features.stop()
        finally:
            model.end()
            features.end()
            redis.stop()
