"""When a service says that it serves, and what it says while it does not."""

import asyncio
import subprocess
import sys

import grpc
import pytest
from marquee.client.errors import read_error
from marquee.v1 import model_service_pb2 as pb
from structlog.testing import capture_logs

from tests.model_service.conftest import until_serving

RATE = pb.PredictRatingRequest(user=pb.UserSelector(user_id="ann"), movie_id="heat")
RATE_INLINE = pb.PredictRatingRequest(user=pb.UserSelector(inline_user=pb.InlineUser()), movie_id="heat")


async def reasons(logs, dependency):
    for _ in range(400):
        found = [
            line["reason"] for line in logs if line["event"] == "dependency_lost" and line["dependency"] == dependency
        ]
        if found:
            return found
        await asyncio.sleep(0.01)
    raise AssertionError(f"nothing was said about {dependency}")


async def test_without_a_checkpoint_it_waits_and_then_serves(start, train):
    """The label comes later; the service says what it waits for, once, and finds it by itself."""
    with capture_logs() as logs:
        async with start(ready=False) as model:
            found = await reasons(logs, "checkpoint")
            with pytest.raises(grpc.aio.AioRpcError) as raised:
                await model.PredictRating(RATE, timeout=1)
            train("v1")
            await until_serving(model.channel)
            reply = await model.PredictRating(RATE)

    assert found[0].endswith("is labelled 'stable' yet")
    assert len(found) == len(set(found))
    assert raised.value.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)
    assert reply.model_version == "v1"


async def test_without_a_feature_service_it_waits_and_then_serves(start, train, features):
    """As with the checkpoint."""
    train("v1")
    features.is_off = True
    with capture_logs() as logs:
        async with start(ready=False, feature_timeout_s=0.2) as model:
            found = await reasons(logs, "catalogue")
            features.is_off = False
            await until_serving(model.channel)

    assert found[0].startswith("feature_service cannot be read now")


async def test_without_a_movie_it_waits_and_then_serves(start, train, features):
    """A store that nobody has filled yet has nothing to recommend."""
    train("v1")
    features.replace_catalogue()
    with capture_logs() as logs:
        async with start(ready=False) as model:
            found = await reasons(logs, "catalogue")
            features.put_movie("heat")
            await until_serving(model.channel)

    assert found == ["feature_service holds no movies yet: publish some"]


async def test_a_corrupt_checkpoint_is_refused_and_a_moved_label_found(start, train):
    """The reason is said; the service waits for the label to move."""
    folder = train("v1")
    weights = folder / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-8])
    with capture_logs() as logs:
        async with start(ready=False) as model:
            found = await reasons(logs, "checkpoint")
            train("v2")
            await until_serving(model.channel)
            reply = await model.PredictRating(RATE)

    assert found == ["weights.safetensors does not match its hash in the manifest: it was altered or damaged"]
    assert reply.model_version == "v2"


async def test_a_checkpoint_that_answers_otherwise_than_when_written_is_refused(start, train, monkeypatch):
    """The golden users of the manifest are asked before anybody else."""
    from tests.model_service.hand_made import HandMade

    train("v1")
    embed_movies = HandMade.embed_movies

    def off_by_one(self, movies):
        embeddings = embed_movies(self, movies)
        embeddings.ranking_biases.add_(1.0)
        return embeddings

    monkeypatch.setattr(HandMade, "embed_movies", off_by_one)
    with capture_logs() as logs:
        async with start(ready=False):
            found = await reasons(logs, "checkpoint")

    assert "golden user 0 gets ranking score" in found[0]


async def test_a_model_that_fails_the_warm_up_does_not_serve(start, train, monkeypatch):
    """What fails made-up users would fail every caller."""
    from model_service import rollout

    def fail(*arguments):
        raise RuntimeError("the device is on fire")

    train("v1")
    monkeypatch.setattr(rollout, "warm_up", fail)
    with capture_logs() as logs:
        async with start(ready=False) as model:
            found = await reasons(logs, "checkpoint")
            await until_serving(model.channel, wanted=False)

    assert found == ["RuntimeError, see the log"]


async def test_another_label_can_be_served(start, train):
    """MODEL_LABEL says which."""
    train("v1")
    train("v2", label="canary")

    async with start(label="canary") as model:
        assert (await model.PredictRating(RATE)).model_version == "v2"


async def test_a_feature_service_lost_later_is_said_to_those_whom_it_concerns(start, train, features):
    """A stored user is refused for now, an anonymous one is answered, and health stays as it is."""
    train("v1")
    async with start(feature_timeout_s=1.0) as model:
        features.is_off = True
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await model.PredictRating(RATE, timeout=10)
        anonymous = await model.PredictRating(RATE_INLINE)
        await until_serving(model.channel)
        features.is_off = False
        again = await model.PredictRating(RATE)

    error = read_error(raised.value)
    assert (error.code, error.reason) == (grpc.StatusCode.UNAVAILABLE, "FEATURE_SERVICE_UNAVAILABLE")
    assert error.retry_after_s > 0
    assert (anonymous.rating, again.rating) == (3.0, 4.0)


async def test_a_setting_answers_without_a_feature_service(start, train, features):
    """By the trained vector if there is one, else as one of whom nothing is known."""
    train("v1")
    async with start(feature_timeout_s=1.0, answer_without_features=True) as model:
        features.is_off = True
        trained = await model.PredictRating(RATE)
        RATE_NOBODY = pb.PredictRatingRequest(user=pb.UserSelector(user_id="nobody"), movie_id="heat")
        nobody = await model.PredictRating(RATE_NOBODY)

    assert (trained.rating, trained.source) == (4.0, pb.ANSWER_SOURCE_PERSONAL)
    assert (nobody.rating, nobody.source) == (3.0, pb.ANSWER_SOURCE_POPULAR)


def test_wrong_settings_end_the_process_with_all_of_them_listed(tmp_path):
    """Exit 2: waiting would not help. A misspelt variable is one of them."""
    (tmp_path / "file").write_text("")
    settings = {
        "MODEL_REGISTRY": str(tmp_path / "file"),
        "MODEL_DEVICE": "tpu",
        "MODEL_MAX_BATCH_ROW": "3",
        "MODEL_BATCH_GAP_MS": "-1",
    }

    ended = subprocess.run(
        [sys.executable, "-m", "model_service"],
        env={"OMP_NUM_THREADS": "1", **settings},
        capture_output=True,
        text=True,
    )

    assert ended.returncode == 2
    assert sorted(line.split(":")[0].split()[0] for line in ended.stderr.splitlines()) == [
        "MODEL_BATCH_GAP_MS",
        "MODEL_DEVICE",
        "MODEL_MAX_BATCH_ROW",
        "MODEL_REGISTRY",
    ]
    assert "did you mean MODEL_MAX_BATCH_ROWS?" in ended.stderr
