"""Runs a real Prometheus and asks it. Knows its configuration and its API; knows no metric."""

import json
import math
import shutil
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from deploy.local.processes import free_address

RULES = Path("deploy/prometheus")


@dataclass(frozen=True)
class Prometheus:
    """A server that scrapes every second."""

    address: str

    def ask(self, path: str, **parameters: str) -> Any:
        """Returns what its API answers."""
        url = f"http://{self.address}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        with urllib.request.urlopen(url, timeout=30) as answer:
            return json.load(answer)["data"]

    def has_data(self, expression: str) -> bool:
        """Tells whether an expression has at least one series with a number."""
        found = self.ask("query", query=expression)["result"]
        return any(math.isfinite(float(series["value"][1])) for series in found)


def with_targets(targets: Mapping[str, str]) -> dict[str, Any]:
    """Returns the deployed configuration, where each job has one known target instead of names that DNS would tell."""
    config: dict[str, Any] = yaml.safe_load((RULES / "prometheus.yml").read_text())
    assert {job["job_name"] for job in config["scrape_configs"]} == set(targets)
    config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    config["rule_files"] = [str((RULES / name).resolve()) for name in config["rule_files"]]
    for job in config["scrape_configs"]:
        del job["dns_sd_configs"]
        job["static_configs"] = [{"targets": [targets[job["job_name"]]]}]
    return config


@contextmanager
def prometheus(folder: Path, targets: Mapping[str, str]) -> Iterator[Prometheus]:
    """Runs Prometheus with our configuration over these targets, until the context ends."""
    program = shutil.which("prometheus")
    assert program is not None
    folder.mkdir()
    (folder / "prometheus.yml").write_text(yaml.safe_dump(with_targets(targets)))
    server = Prometheus(free_address())
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [
                program,
                f"--config.file={folder / 'prometheus.yml'}",
                f"--storage.tsdb.path={folder / 'data'}",
                f"--web.listen-address={server.address}",
            ],
            stdout=log,
            stderr=subprocess.STDOUT,
            cwd=folder,
        )
        try:
            _wait_until_up(server, process, folder / "log")
            yield server
        finally:
            process.terminate()
            process.wait(30)


def _wait_until_up(server: Prometheus, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        assert process.poll() is None, log.read_text()
        try:
            server.ask("query", query="1")
        except OSError:
            time.sleep(0.1)
        else:
            return
    raise AssertionError(f"Prometheus does not answer.\n{log.read_text()}")
