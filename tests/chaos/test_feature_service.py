"""Drills on feature_service: killed, told to stop, slow, half-open."""

import signal
import time

import pytest

from tests.chaos.conftest import Drill
from tests.chaos.stack import FEATURE_TIMEOUT_S, ChaosStack

# Channels promise 20 s; by gRPC's own defaults it takes a minute. The machine may be busy.
NOTICED_WITHIN_S = 45.0
pytestmark = [pytest.mark.timeout(300), pytest.mark.chaos]


async def test_feature_service_killed(stack: ChaosStack, drill: Drill):
    """Callers are refused while it is away, also by model_service, which finds it again by itself."""
    async with drill("feature_service killed") as load:
        stack.features.kill()
        await load.until_refused("UNAVAILABLE", 5)
        await load.until_refused("FEATURE_SERVICE_UNAVAILABLE", 5)
        stack.features.start()


async def test_feature_service_restarted(stack: ChaosStack, drill: Drill):
    """One that drains refuses what it cannot take; the channel's own tries hide most of it."""
    async with drill("feature_service restarted") as load:
        stack.features.send(signal.SIGTERM)
        await load.until(lambda: stack.features.log.process.poll() is not None, "it ends")
        assert stack.features.log.process.wait() == 0
        stack.features.start()


async def test_feature_service_slow(stack: ChaosStack, drill: Drill):
    """Slower than usual is answered later; slower than MODEL_FEATURE_TIMEOUT_S is refused."""
    async with drill("feature_service slow") as load:
        stack.to_features.delay_s = 0.1
        await load.until_answered(50)
        assert not load.noticed()
        stack.to_features.delay_s = 4 * FEATURE_TIMEOUT_S
        try:
            await load.until_refused("DEADLINE_EXCEEDED", 10)
        finally:
            stack.to_features.delay_s = 0.0


async def test_feature_service_half_open(stack: ChaosStack, drill: Drill):
    """The connections that stand lead nowhere, and nobody closes them: keepalive finds out, and new ones are made."""
    async with drill("feature_service half-open") as load:
        began = time.monotonic()
        stack.to_features.swallow()
        await load.until_refused("DEADLINE_EXCEEDED", 10)
        await load.until_well()
        took_s = time.monotonic() - began
    assert took_s < NOTICED_WITHIN_S
