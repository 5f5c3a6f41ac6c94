"""Makes a running stack do a little of everything, and a trainer rebuild beside it. Knows RPCs; checks no answer."""

import itertools
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any

import grpc
import pytest
from marquee.v1 import feature_service_pb2, model_service_pb2

from tests.integration.stack.running_stack import TIMEOUT_S, RunningStack
from tests.scraping import scrape
from trainer.rebuild.journal import Figure, Journal, Result
from two_tower.registry import Registry


class Traffic:
    """Calls that nobody else of the stack looks at: their users are made up.

    Attributes:
        user_ids: Who is asked for, and who watches.
    """

    def __init__(self, running: RunningStack) -> None:
        self._running = running
        self._model = next(iter(running.models.values()))
        self._minutes = itertools.count(1)
        info = running.features.GetStoreInfo(feature_service_pb2.GetStoreInfoRequest(), timeout=TIMEOUT_S)
        export = feature_service_pb2.RegisterExportRequest(name="watched", position=info.log_position)
        running.features.RegisterExport(export, timeout=TIMEOUT_S)
        self.user_ids = [f"watched-{number}" for number in range(50)]

    def make(self) -> None:
        """Asks for one, asks for many, writes an event, and is refused once."""
        minute = next(self._minutes)
        users = [model_service_pb2.UserSelector(user_id=user_id) for user_id in self.user_ids]
        for user in users[:5]:
            self._model.TopK(model_service_pb2.TopKRequest(user=user, k=5), timeout=TIMEOUT_S)
        self._model.BatchTopK(model_service_pb2.BatchTopKRequest(users=users, k=5), timeout=TIMEOUT_S)
        movie_ids = self._running.data.movies.movie_ids
        self._running.watch(self.user_ids[minute % 50], movie_ids[minute % len(movie_ids)], minute, rating=4.0)
        with pytest.raises(grpc.RpcError):
            self._model.TopK(model_service_pb2.TopKRequest(user=users[0], k=0), timeout=TIMEOUT_S)


@contextmanager
def rebuilding(folder: Path, feature_address: str, metrics: str) -> Iterator[None]:
    """Runs `trainer rebuild --every 1d`, from when its metrics can be read until the context ends.

    It waits: its journal says that a rebuild has just ended.

    Args:
        folder: The registry and the log go there.
        feature_address: HOST:PORT of feature_service.
        metrics: HOST:PORT of the trainer's metrics.
    """
    registry, log = folder / "registry", folder / "rebuild.log"
    registry.mkdir()
    Journal(Registry(registry)).close(_just_ended())
    command = [sys.executable, "-m", "trainer", "rebuild", "--every", "1d", "--no-report", "--model", "bias"]
    command += ["--registry", str(registry), "--feature-service", feature_address, "--metrics", metrics]
    with log.open("wb") as stream:
        process = subprocess.Popen(
            command, stdout=stream, stderr=subprocess.STDOUT, env={**os.environ, "OMP_NUM_THREADS": "1"}
        )
    try:
        while True:
            assert process.poll() is None, log.read_text()
            try:
                scrape(metrics)
            except OSError:
                continue
            break
        yield
    finally:
        process.terminate()
        process.wait(60)


def _just_ended() -> Result:
    now_ms = int(time.time() * 1000)
    told: dict[str, Any] = {
        "outcome": "promoted",
        "reason": "better on the newest rows",
        "label": "stable",
        "started_at_ms": now_ms - 60_000,
        "ended_at_ms": now_ms,
        "snapshot": "newest",
        "num_rows": 2000,
        "num_events": 100,
        "num_deleted": 0,
        "figures": [Figure(metric="rmse", new=0.9, old=1.0, gain=0.1, low=0.05, high=0.15)],
    }
    nothing_else: dict[str, Any] = {each.name: None for each in fields(Result)}
    return Result(**(nothing_else | told))
