"""Processes start in any order and find each other."""

import shutil
from pathlib import Path

import pytest
from marquee.client.model_client import ModelClient

from tests.chaos.checkpoints import Trained
from tests.chaos.faulty_proxy import FaultyProxy, to_unix
from tests.chaos.stack import Process
from tests.faults.victims import KilledRedis
from two_tower.registry import STABLE, Registry

pytestmark = pytest.mark.timeout(600)
# Of the first each waits for what comes next.
ORDERS = [
    ("model_service", "feature_service", "Redis"),
    ("feature_service", "Redis", "model_service"),
    ("Redis", "model_service", "feature_service"),
]


@pytest.mark.parametrize(
    "order",
    [
        pytest.param(order, marks=[] if order is ORDERS[0] else pytest.mark.chaos, id="-".join(order))
        for order in ORDERS
    ],
)
async def test_any_order_ends_in_answers(order: tuple[str, ...], trained: Trained, tmp_path: Path):
    """Whoever comes first waits and says for what; users, movies and a checkpoint come last of all."""
    folder, registry = tmp_path / "redis", Registry(tmp_path / "registry")
    folder.mkdir()
    registry.path.mkdir()
    redis: list[KilledRedis] = []
    with FaultyProxy(to_unix(str(folder / "redis.sock"))) as to_redis:
        features = Process("feature_service", tmp_path, {"FEATURE_REDIS_URL": f"redis://{to_redis.address}"})
        settings = {
            "MODEL_FEATURE_SERVICE": features.address,
            "MODEL_REGISTRY": str(registry.path),
            "MODEL_REGISTRY_POLL_S": "0.2",
            "MODEL_RETRY_S": "0.2",
            "MODEL_DEVICE": "cpu",
            "OMP_NUM_THREADS": "1",
        }
        model = Process("model_service", tmp_path, settings)
        try:
            for name in order:
                if name == "Redis":
                    redis.append(KilledRedis(folder, "everysec"))
                elif name == "feature_service":
                    features.start()
                    await features.log.has_said(*(("listening",) if redis else ("dependency_lost",)))
                else:
                    model.start()
                    await model.log.has_said("dependency_lost", dependency="checkpoint")
            await features.until_ready()
            trained.publish_to(features.address)
            version = trained.registry.labels()[STABLE]
            shutil.copytree(trained.registry.path_of(version), registry.path / version)
            registry.set_label(STABLE, version)

            await model.until_ready()

            async with ModelClient(model.address, timeout_s=60) as client:
                answer = await client.top_k(trained.snapshot.data.user_ids[0], 5)
            assert answer.model_version == version
            assert len(answer.movies) == 5
            model.stop()
            features.stop()
        finally:
            model.end()
            features.end()
            for server in redis:
                server.stop()
