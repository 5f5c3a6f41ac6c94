"""A running stack: a real Redis, feature_service, and model_service once for each model, as processes."""

import json
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest
from marquee.client.channel import open_sync_channel
from marquee.v1 import feature_service_pb2_grpc, model_service_pb2_grpc

from deploy.local.processes import ServiceProcess, free_address
from deploy.local.stack import LocalStack
from tests.integration.stack.running_stack import MODELS, RunningStack
from trainer.fits import silent
from trainer.publishing import publish
from trainer.readers.read_options import ReadOptions
from trainer.snapshot import Snapshot, divide_again, take_snapshot
from trainer.synthesis import SynthesisPlan, write_synthetic
from trainer.training import Request, train
from two_tower.checkpoint import load
from two_tower.registry import Registry

QUICK = {
    "marquee": [
        "machine_iterations=10",
        "towers=1",
        "hidden_size=64",
        "tower_epochs=20",
        "ranking_epochs=10",
        "measured_deviations=false",
    ]
}
"""Options with which a model fits the synthetic data in seconds."""


def metrics_address(process: ServiceProcess) -> str:
    """Returns where a process that serves answers Prometheus, from its log."""
    lines = [json.loads(line) for line in process.log.read_text().splitlines() if line.startswith("{")]
    (address,) = [line["address"] for line in lines if line["event"] == "metrics_listening"]
    return str(address)


@pytest.fixture(scope="session")
def snapshot(tmp_path_factory: pytest.TempPathFactory) -> Snapshot:
    """A synthetic data set, small enough to train on in seconds."""
    folder: Path = tmp_path_factory.mktemp("data")
    write_synthetic(SynthesisPlan(num_users=200, num_movies=300, num_ratings=12_000, seed=7), folder)
    return take_snapshot(str(folder), ReadOptions())


@pytest.fixture(scope="session")
def registry(snapshot: Snapshot, tmp_path_factory: pytest.TempPathFactory) -> Registry:
    """Both models, each under a label of its own name."""
    registry = Registry(tmp_path_factory.mktemp("registry"))
    for model in MODELS:
        options = QUICK.get(model, [])
        train(snapshot, registry, Request(model=model, label=model, options=options, reported=False), silent)
    return registry


@pytest.fixture(scope="session")
def running(snapshot: Snapshot, registry: Registry, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningStack]:
    """Everything, published and serving."""
    checkpoints = {model: load(registry.path_of(registry.labels()[model])) for model in MODELS}
    stack = LocalStack.on_free_ports(tmp_path_factory.mktemp("stack"), registry.path)
    with ExitStack() as processes:
        process = processes.enter_context(stack.feature_service())
        metrics, logs = {"feature_service": metrics_address(process)}, [process.log]
        channel = processes.enter_context(open_sync_channel(stack.feature_address))
        rows = divide_again(snapshot, checkpoints["marquee"].manifest).train
        publish(channel, snapshot.data, rows)
        models = {}
        for model in MODELS:
            beside = replace(stack, folder=stack.folder / model, model_address=free_address())
            process = processes.enter_context(beside.model_service(label=model, device="cpu"))
            metrics.setdefault("model_service", metrics_address(process))
            logs.append(process.log)
            to_model = processes.enter_context(open_sync_channel(beside.model_address))
            models[model] = model_service_pb2_grpc.ModelServiceStub(to_model)
        features = feature_service_pb2_grpc.FeatureServiceStub(channel)
        yield RunningStack(features, models, checkpoints, snapshot.data, stack.feature_address, metrics, logs)
