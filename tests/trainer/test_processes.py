"""Several processes train one model, and the first of them speaks for all."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from trainer.errors import TrainerError
from trainer.processes import Processes, started_together
from trainer.readers.read_options import ReadOptions
from trainer.snapshot import take_snapshot
from trainer.synthesis import SynthesisPlan, write_synthetic
from trainer.training import Request, require_model_of_processes, train
from two_tower import checkpoint as checkpoints
from two_tower.registry import Registry

OPTIONS = ("epochs=3", "cuts=10", "batch_users=16", "ranking_size=16", "warm_up_steps=5")


def free_port() -> str:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return str(found.getsockname()[1])


def test_two_processes_reach_what_one_does(tmp_path: Path) -> None:
    """Each has half the users of a step, and together they write one checkpoint."""
    write_synthetic(SynthesisPlan(120, 80, 4000), tmp_path / "data")
    snapshot = take_snapshot(str(tmp_path / "data"), ReadOptions())
    request = Request("two-tower", "random:0.1", options=OPTIONS, calibrated=False, reported=False)
    alone = train(snapshot, Registry(tmp_path / "alone"), request)

    told = subprocess.run(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", free_port()),
            *("-m", "trainer", "train", "--data", str(tmp_path / "data"), "--registry", str(tmp_path / "together")),
            *("--model", "two-tower", "--holdout", "random:0.1", "--no-calibrate", "--no-report"),
            *(word for option in OPTIONS for word in ("--set", option)),
        ],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )

    assert told.returncode == 0, told.stderr
    registry = Registry(tmp_path / "together")
    (version,) = registry.versions()
    together = checkpoints.load(registry.path_of(version)).manifest
    assert together.metrics.rmse == pytest.approx(alone.manifest.metrics.rmse, rel=0.01)


def test_a_process_knows_its_place_from_its_environment() -> None:
    """As torchrun tells it."""
    assert started_together({}) == (1, 0)
    assert started_together({"WORLD_SIZE": "4", "RANK": "3"}) == (4, 3)


def test_one_process_is_the_first_and_shares_with_nobody() -> None:
    """What it would share it keeps."""
    alone = Processes()

    assert alone.is_first
    assert alone.mean({"loss": 2.0}) == {"loss": 2.0}
    alone.wait()


def test_a_model_of_one_process_is_refused_under_torchrun(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two processes would make the same checkpoint twice."""
    monkeypatch.setenv("WORLD_SIZE", "2")

    require_model_of_processes("two-tower")
    with pytest.raises(TrainerError, match="mean is trained by one process"):
        require_model_of_processes("mean")
