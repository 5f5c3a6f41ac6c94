"""Starts both services as processes, with models trained on a small data set. Makes no request up."""

import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import grpc
from marquee.v1 import (
    feature_service_pb2_grpc,
    model_admin_pb2,
    model_admin_pb2_grpc,
    model_service_pb2,
    model_service_pb2_grpc,
)

from deploy.local.processes import ServiceProcess, free_address
from tests.fuzz.fuzzed_stack import (
    FEATURES,
    LONGER_THAN_FUZZING_S,
    NUM_SPARED,
    START_TIMEOUT_S,
    FuzzedStack,
    feature_service,
    open_unrepeated,
    store_check,
)
from tests.fuzz.known_values import gather
from trainer.publishing import publish
from trainer.readers.read_options import ReadOptions
from trainer.snapshot import take_snapshot
from trainer.synthesis import SynthesisPlan, write_synthetic
from trainer.training import Request, train
from two_tower.registry import STABLE, Registry

MODELS = model_service_pb2.DESCRIPTOR.services_by_name["ModelService"]
ADMIN = model_admin_pb2.DESCRIPTOR.services_by_name["ModelAdminService"]
QUICK = {
    "marquee": (
        *("machine_iterations=3", "towers=1", "hidden_size=16", "tower_epochs=2", "ranking_epochs=2"),
        "measured_deviations=false",
    ),
    "two-tower-history": ("epochs=1",),
    "content-fc": ("epochs=1",),
}
"""Models that answer in different ways, with options by which they fit in a second or few."""
_TIMEOUT_S = 60.0
_PAUSE_S = 0.1


@contextmanager
def everything(folder: Path, models: Sequence[str] = tuple(QUICK)) -> Iterator[FuzzedStack]:
    """Trains models on a small data set, publishes it, and runs both services; the first model has the label stable."""
    registry = Registry(folder / "registry")
    write_synthetic(SynthesisPlan(num_users=60, num_movies=80, num_ratings=1500, seed=7), folder / "data")
    snapshot = take_snapshot(str(folder / "data"), ReadOptions())
    for model in models:
        label = STABLE if model == models[0] else model
        options = QUICK[model]
        train(snapshot, registry, Request(model=model, label=label, options=options, reported=False, calibrated=False))
    data = snapshot.data
    with ExitStack() as stack:
        feature_process = stack.enter_context(feature_service(folder, "feature_service"))
        feature_channel = stack.enter_context(open_unrepeated(feature_process.address))
        publish(feature_channel, data, data.interactions)
        features = feature_service_pb2_grpc.FeatureServiceStub(feature_channel)
        model_process, admin_address = stack.enter_context(_model_service(folder, feature_process.address, models[1:]))
        model_channel = stack.enter_context(open_unrepeated(model_process.address))
        admin_channel = stack.enter_context(open_unrepeated(admin_address))
        admin = model_admin_pb2_grpc.ModelAdminServiceStub(admin_channel)
        check_store = store_check(features, data.user_ids[0])
        check_models = _model_check(
            model_service_pb2_grpc.ModelServiceStub(model_channel),
            list(registry.labels().values()),
            data.user_ids[0],
            data.movies.movie_ids[0],
        )

        def check() -> None:
            check_store()
            check_models()

        yield FuzzedStack(
            {FEATURES: feature_channel, MODELS: model_channel, ADMIN: admin_channel},
            [feature_process, model_process],
            lambda: gather(features, admin, data.user_ids[NUM_SPARED:], data.movies.movie_ids[NUM_SPARED:]),
            check,
        )


@contextmanager
def _model_service(
    folder: Path, feature_address: str, also_labels: Sequence[str]
) -> Iterator[tuple[ServiceProcess, str]]:
    address, admin_address = free_address(), free_address()
    settings = {
        "MODEL_LISTEN": address,
        "MODEL_ADMIN_LISTEN": admin_address,
        "MODEL_REGISTRY": str(folder / "registry"),
        "MODEL_ALSO_LABELS": json.dumps(list(also_labels)),
        "MODEL_DEVICE": "cpu",
        "MODEL_FEATURE_SERVICE": feature_address,
        "MODEL_MAX_CONNECTION_AGE_S": LONGER_THAN_FUZZING_S,
    }
    with ServiceProcess("model_service", address, settings, folder / "model_service.log") as process:
        process.wait_until_serving(START_TIMEOUT_S)
        yield process, admin_address


def _model_check(
    models: model_service_pb2_grpc.ModelServiceStub, versions: Sequence[str], user_id: str, movie_id: str
) -> Callable[[], None]:
    def rate(version: str) -> model_service_pb2.PredictRatingResponse:
        request = model_service_pb2.PredictRatingRequest(movie_id=movie_id)
        request.user.user_id = user_id
        if version:
            request.model.model_version = version
        return models.PredictRating(request, timeout=_TIMEOUT_S)

    def rating_once_in_memory(version: str) -> float:
        """What labels besides the first name is loaded while that one answers."""
        deadline = time.monotonic() + START_TIMEOUT_S
        while True:
            try:
                return rate(version).rating
            except grpc.RpcError as error:
                if error.code() is not grpc.StatusCode.FAILED_PRECONDITION or time.monotonic() > deadline:
                    raise
            time.sleep(_PAUSE_S)

    expected = {version: rating_once_in_memory(version) for version in versions}

    def check() -> None:
        answer = rate("")
        right = expected[answer.model_version]
        assert abs(answer.rating - right) < 1e-3, f"{answer.model_version} rates {answer.rating}, it was {right}"

    return check
