"""Drills on Redis: killed, paused, slow, full."""

import os
import signal

import pytest
import redis

from tests.chaos.conftest import Drill
from tests.chaos.stack import REDIS_TIMEOUT_S, ChaosStack
from tests.faults.refusing import configured

pytestmark = pytest.mark.timeout(300)
CHAOS = pytest.mark.chaos


async def test_redis_killed(stack: ChaosStack, drill: Drill):
    """Refused while it is away; nothing that was acknowledged is lost, and nobody restarts a service."""
    async with drill("Redis killed") as load:
        stack.redis.kill()
        await load.until_refused("REDIS_UNAVAILABLE", 5)
        await load.until_refused("FEATURE_SERVICE_UNAVAILABLE", 5)
        stack.redis.revive()


@CHAOS
async def test_redis_paused(stack: ChaosStack, drill: Drill):
    """It takes connections and answers nothing: callers are told after FEATURE_REDIS_TIMEOUT_S."""
    async with drill("Redis paused") as load:
        os.kill(stack.redis.pid, signal.SIGSTOP)
        try:
            await load.until_refused("REDIS_TIMEOUT", 5)
            await load.until_refused("FEATURE_SERVICE_UNAVAILABLE", 5)
        finally:
            os.kill(stack.redis.pid, signal.SIGCONT)


@CHAOS
async def test_redis_slow(stack: ChaosStack, drill: Drill):
    """Slower than usual is answered later; slower than FEATURE_REDIS_TIMEOUT_S is refused."""
    async with drill("Redis slow") as load:
        stack.to_redis.delay_s = 0.1
        await load.until_answered(50)
        assert not load.noticed()
        stack.to_redis.delay_s = 1.5 * REDIS_TIMEOUT_S
        try:
            await load.until_refused("REDIS_TIMEOUT", 5)
        finally:
            stack.to_redis.delay_s = 0.0


@CHAOS
async def test_redis_out_of_memory(stack: ChaosStack, drill: Drill):
    """Writes are refused, reads are answered; room is made and writes are taken."""
    async with drill("Redis out of memory") as load:
        with (
            redis.Redis(unix_socket_path=str(stack.redis.socket)) as client,
            configured(client, maxmemory="1", maxmemory_policy="noeviction"),
        ):
            await load.until_refused("REDIS_OUT_OF_MEMORY", 10)
            await load.until_answered(50)
    assert set(load.noticed()) == {"REDIS_OUT_OF_MEMORY"}
