"""A pytest plugin: feature_service on a real Redis, in the test's own event loop and ready."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from marquee.client.channel import open_channel
from marquee.v1 import feature_service_pb2_grpc

from feature_service.__main__ import serving
from feature_service.settings import FeatureSettings


async def until_ready(channel: grpc.aio.Channel, timeout_s: float = 30.0) -> None:
    """Waits until the service behind a channel is SERVING."""
    watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(), wait_for_ready=True)
    async with asyncio.timeout(timeout_s):
        async for response in watch:
            if response.status == health_pb2.HealthCheckResponse.SERVING:
                break
    watch.cancel()


@pytest.fixture
async def feature_address(redis_settings: dict[str, Any]) -> AsyncIterator[str]:
    """host:port of a feature_service whose store is empty."""
    settings = FeatureSettings(**redis_settings, listen="127.0.0.1:0", drain_timeout_s=1.0, max_pending_calls=1000)
    async with serving(settings) as server:
        async with open_channel(server.address) as channel:
            await until_ready(channel)
        yield server.address


@pytest.fixture
async def feature_stub(feature_address: str) -> AsyncIterator[feature_service_pb2_grpc.FeatureServiceStub]:
    """A client of `feature_address`."""
    async with open_channel(feature_address) as channel:
        yield feature_service_pb2_grpc.FeatureServiceStub(channel)
