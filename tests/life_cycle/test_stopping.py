"""A process that is told to stop answers what it has taken and takes no more; told twice it is gone at once."""

import asyncio
import signal
import time

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from marquee.client.channel import open_channel
from marquee.v1 import feature_service_pb2 as fpb
from marquee.v1 import feature_service_pb2_grpc
from marquee.v1 import model_service_pb2 as pb
from marquee.v1.model_service_pb2_grpc import ModelServiceStub

from tests.chaos.checkpoints import Trained
from tests.chaos.faulty_proxy import FaultyProxy, to_tcp
from tests.chaos.stack import Process
from tests.feature_service import messages as make

pytestmark = pytest.mark.timeout(300)
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
# One that waits for nobody ends in milliseconds; the machine may be busy.
AT_ONCE_S = 10.0
LONG_S = 60.0


async def ended(process: Process) -> int:
    """Waits for the end of a process and returns its exit status."""
    return await asyncio.to_thread(process.log.process.wait, LONG_S)


async def ready(process: Process) -> None:
    """Starts a feature_service and waits until it is ready."""
    process.start()
    await process.until_ready()


def hanging(channel: grpc.aio.Channel) -> "asyncio.Future[fpb.BatchGetUsersResponse]":
    """Begins a read of feature_service."""
    stub = feature_service_pb2_grpc.FeatureServiceStub(channel)
    return asyncio.ensure_future(stub.BatchGetUsers(make.users("ann"), timeout=LONG_S))


async def under_way(process: Process, method: str) -> None:
    """Waits until a call of a method is under way."""
    async with asyncio.timeout(LONG_S):
        while await asyncio.to_thread(process.in_flight, method) < 1:  # noqa: ASYNC110  a page tells nobody of changes
            await asyncio.sleep(0.05)


async def test_what_was_taken_is_answered_and_nothing_more_is_taken(features: Process, to_redis: FaultyProxy):
    """SIGTERM: NOT_SERVING, new callers find nobody, the running call is answered, exit 0."""
    await ready(features)
    async with open_channel(features.address) as channel, open_channel(features.address) as later:
        watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
        await watch.read()
        to_redis.delay_s = 2.0
        running = hanging(channel)
        await under_way(features, "BatchGetUsers")

        features.send(signal.SIGTERM)

        assert (await watch.read()).status == NOT_SERVING
        answer = await running
        stub = feature_service_pb2_grpc.FeatureServiceStub(later)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await stub.BatchGetUsers(make.users("ann"), timeout=AT_ONCE_S)
        assert await ended(features) == 0
    assert [user.user_id for user in answer.users] == ["ann"]
    assert refused.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_the_grace_ends_though_a_call_does_not(features: Process, to_redis: FaultyProxy):
    """Who cannot be answered within FEATURE_DRAIN_TIMEOUT_S does not keep the process: exit 0, and the log says it."""
    features.settings["FEATURE_DRAIN_TIMEOUT_S"] = "0.5"
    await ready(features)
    async with open_channel(features.address) as channel:
        to_redis.delay_s = LONG_S
        running = hanging(channel)
        await under_way(features, "BatchGetUsers")

        features.send(signal.SIGTERM)

        assert await ended(features) == 0
        with pytest.raises(grpc.aio.AioRpcError) as gone:
            await running
    assert gone.value.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)
    assert "drain_timeout" in {line["event"] for line in features.log.events()}


async def test_a_second_signal_ends_feature_service_at_once(features: Process, to_redis: FaultyProxy):
    """Though a call is under way and the grace is a minute: exit 1."""
    features.settings["FEATURE_DRAIN_TIMEOUT_S"] = str(LONG_S)
    await ready(features)
    async with open_channel(features.address) as channel:
        to_redis.delay_s = LONG_S
        running = hanging(channel)
        await under_way(features, "BatchGetUsers")
        features.send(signal.SIGTERM)
        await features.log.has_said("draining", running=1)
        began = time.monotonic()

        features.send(signal.SIGTERM)

        assert await ended(features) == 1
        assert time.monotonic() - began < AT_ONCE_S
        with pytest.raises(grpc.aio.AioRpcError):
            await running


async def test_a_second_signal_ends_model_service_at_once(
    features: Process, to_redis: FaultyProxy, trained: Trained, tmp_path
):
    """Though it waits for feature_service, with its grace of a minute: exit 1."""
    await ready(features)
    trained.publish_to(features.address)
    with FaultyProxy(to_tcp(features.address)) as to_features:
        settings = {
            "MODEL_REGISTRY": str(trained.registry.path),
            "MODEL_FEATURE_SERVICE": to_features.address,
            "MODEL_FEATURE_TIMEOUT_S": str(LONG_S),
            "MODEL_DRAIN_TIMEOUT_S": str(LONG_S),
            "MODEL_DEVICE": "cpu",
            "MODEL_NEAR_CACHE_BYTES": "0",
            "OMP_NUM_THREADS": "1",
        }
        model = Process("model_service", tmp_path, settings)
        model.start()
        try:
            await model.until_ready()
            async with open_channel(model.address) as channel:
                to_features.delay_s = LONG_S
                request = pb.TopKRequest(user=pb.UserSelector(user_id="ann"), k=3)
                running = asyncio.ensure_future(ModelServiceStub(channel).TopK(request, timeout=LONG_S))
                await under_way(model, "TopK")
                model.send(signal.SIGTERM)
                await model.log.has_said("draining", running=1)
                began = time.monotonic()

                model.send(signal.SIGTERM)

                assert await ended(model) == 1
                assert time.monotonic() - began < AT_ONCE_S
                with pytest.raises(grpc.aio.AioRpcError):
                    await running
        finally:
            model.end()
