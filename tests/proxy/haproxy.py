"""Runs HAProxy with the configuration that users are given. Knows replicas by name; knows no RPC."""

import os
import re
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from feature_service import child_process
from tests.redis_cluster import free_ports

CONFIGURATION = Path(__file__).parents[2] / "deploy" / "haproxy" / "haproxy.cfg"
_UP = re.compile(r'haproxy_server_status\{proxy="\w+",server="([\w-]+)",state="UP"\} 1')
_PATIENCE_S = 120.0


@dataclass(frozen=True)
class Proxy:
    """A running HAProxy.

    Attributes:
        features: host:port of feature_service.
        models: host:port of model_service.
        metrics: host:port of its own metrics.
    """

    features: str
    models: str
    metrics: str

    def up(self) -> set[str]:
        """Returns the replicas that it sends calls to."""
        with urllib.request.urlopen(f"http://{self.metrics}/metrics", timeout=30) as answer:
            return set(_UP.findall(answer.read().decode()))

    def wait_for(self, wanted: set[str]) -> None:
        """Returns once it sends calls to these replicas and no other."""
        give_up = time.monotonic() + _PATIENCE_S
        while (found := self.up()) != wanted:
            assert time.monotonic() < give_up, f"up are {sorted(found)}, wanted {sorted(wanted)}"
            time.sleep(0.05)


@contextmanager
def haproxy(features: Sequence[str], models: Sequence[str], log: Path) -> Iterator[Proxy]:
    """Runs it in front of two replicas of each service; fails the test where there is none."""
    program = shutil.which("haproxy", path=os.environ.get("PATH", "") + ":/usr/sbin")
    if program is None:
        # Who runs these tests asked for them by name (`make test-proxy`): to skip them would look like a pass.
        pytest.fail("haproxy is not on the PATH: apt install haproxy")
    to_features, to_models, metrics = (f"127.0.0.1:{port}" for port in free_ports(3))
    variables = {"FEATURES_BIND": to_features, "MODELS_BIND": to_models, "METRICS_BIND": metrics}
    for service, replicas in (("FEATURES", features), ("MODELS", models)):
        variables |= {f"{service}_{number}": address for number, address in enumerate(replicas, 1)}
    with log.open("wb") as output:
        process = subprocess.Popen(
            # Ends with this process, also if that is killed.
            [sys.executable, "-I", child_process.__file__, str(os.getpid()), program, "-db", "-f", str(CONFIGURATION)],
            env={**os.environ, **variables},
            stdout=output,
            stderr=output,
        )
    try:
        proxy = Proxy(to_features, to_models, metrics)
        give_up = time.monotonic() + _PATIENCE_S
        while True:
            assert process.poll() is None, log.read_text()
            try:
                proxy.up()
                break
            except OSError:
                assert time.monotonic() < give_up, log.read_text()
                time.sleep(0.05)
        yield proxy
    finally:
        process.terminate()
        process.wait(20)
