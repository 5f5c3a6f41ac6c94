"""A registry with hand-made checkpoints, a feature service to read from, and a model service to ask."""

import asyncio
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from marquee.client.channel import open_channel
from marquee.v1 import model_service_pb2_grpc

from model_service.__main__ import serve
from model_service.settings import ModelSettings
from tests.model_service.feature_fake import FeatureFake, serving
from tests.model_service.hand_made import HandMade, HandMadeSure
from tests.model_service.hand_made_pairwise import HandMadeById, HandMadePairwise
from tests.training_record import unmeasured
from two_tower import checkpoint, golden
from two_tower.models import MODELS
from two_tower.movie_columns import MovieColumns
from two_tower.popularity import Popularity
from two_tower.registry import Registry
from two_tower.user_columns import Profiles

DATA_UNTIL_MS = 1_500_000_000_000

MOVIE_POINTS = {"heat": (1.0, 0.0), "alien": (0.5, 0.0), "big": (0.0, 1.0), "up": (0.5, 0.5)}
MOVIE_BIASES = {"heat": 0.3, "alien": 0.2, "big": 0.1, "up": 0.0}
USER_POINTS = {"ann": (1.0, 0.25), "bob": (0.0, 1.0)}


@pytest.fixture(autouse=True)
def _hand_made_is_a_model(monkeypatch):
    monkeypatch.setitem(MODELS, HandMade.name, "tests.model_service.hand_made:HandMade")
    monkeypatch.setitem(MODELS, HandMadeSure.name, "tests.model_service.hand_made:HandMadeSure")
    for kind in (HandMadePairwise, HandMadeById):
        monkeypatch.setitem(MODELS, kind.name, f"tests.model_service.hand_made_pairwise:{kind.__name__}")


@pytest.fixture
def registry(tmp_path):
    return Registry(tmp_path / "registry")


@pytest.fixture
def train(registry):
    """Writes a checkpoint of given points and labels it."""

    def write(
        version,
        label="stable",
        user_points=USER_POINTS,
        has_ratings=True,
        has_times=True,
        window=200,
        kind=HandMade,
        rating_spread=None,
        popularity=None,
    ):
        model = kind(MOVIE_POINTS, MOVIE_BIASES, user_points, has_ratings)
        movies = MovieColumns(
            list(MOVIE_POINTS), ["Title"] * 4, np.full(4, 1990, np.float32), [("Drama",), ("Drama",), ("Comedy",), ()]
        )
        data_until_ms = DATA_UNTIL_MS if has_times else 0
        record = unmeasured(model.rating_scale, data_until_ms, has_times=has_times, history_window=window)
        record = replace(record, rating_spread=rating_spread)
        answers = golden.make(model, movies, Profiles.unknown(2), next(iter(user_points)), record.data_until_ms)
        registry.path.mkdir(exist_ok=True)
        popular = None
        if popularity is not None:
            scores = [popularity.get(movie_id, 0.0) for movie_id in model.vocabularies()["movies"]]
            popular = Popularity(365.0, np.array(scores, np.float32))
        folder = checkpoint.write(registry.path, version, model, record, answers, popularity=popular)
        registry.set_label(label, version, now=datetime.now(UTC))
        return folder

    return write


@pytest.fixture
async def features():
    """A feature service that holds the four known movies and one that no checkpoint knows; `address` says where."""
    fake = FeatureFake()
    fake.put_movie("heat", title="Heat", year=1995, genres=["Crime", "Drama"])
    fake.put_movie("alien", title="Alien", year=1979, genres=["Horror", "Drama"])
    fake.put_movie("big", title="Big", year=1988, genres=["Comedy"])
    fake.put_movie("up", title="Up", year=2009, genres=["Comedy", "Drama"])
    fake.put_movie("new", title="New", genres=["Comedy"])
    async with serving(fake) as address:
        fake.address = address
        yield fake


@pytest.fixture
def start(registry, features):
    """Runs a model service in this process; gives a stub once it serves, or at once if `ready` is False."""

    @asynccontextmanager
    async def run(*, ready=True, **settings):
        registry.path.mkdir(exist_ok=True)
        given = {
            "registry": registry.path,
            "listen": "127.0.0.1:0",
            "feature_service": features.address,
            "catalogue_poll_s": 0.05,
            "catalogue_min_interval_s": 0.0,
            "retry_s": 0.05,
            "registry_poll_s": 0.05,
            "admin_listen": "off",
            "drain_timeout_s": 1.0,
            "max_pending_calls": 1000,
        }
        model_settings = ModelSettings(**{**given, **settings})
        async with serve(model_settings) as server, open_channel(server.address) as channel:
            stub = model_service_pb2_grpc.ModelServiceStub(channel)
            stub.channel, stub.address = channel, server.address
            if ready:
                await until_serving(channel)
            yield stub

    return run


async def until_serving(channel, wanted=True):
    """Waits until health says that the service serves, or no longer does."""
    health = health_pb2_grpc.HealthStub(channel)
    for _ in range(400):
        reply = await health.Check(health_pb2.HealthCheckRequest(service="marquee.v1.ModelService"))
        if (reply.status == health_pb2.HealthCheckResponse.SERVING) == wanted:
            return
        await asyncio.sleep(0.01)
    raise AssertionError(f"health never became {wanted}")


@pytest.fixture
async def model(start, train):
    """A stub of a service that answers from checkpoint v1."""
    train("v1")
    async with start() as stub:
        yield stub
