"""Drills on model_service: killed, told to stop, paused."""

import signal

import pytest

from tests.chaos.conftest import Drill
from tests.chaos.stack import ChaosStack

pytestmark = [pytest.mark.timeout(300), pytest.mark.chaos]


async def test_model_service_killed(stack: ChaosStack, drill: Drill):
    """Callers are refused until it is back; it answers as before, without a word from anybody."""
    async with drill("model_service killed") as load:
        stack.model.kill()
        await load.until_refused("UNAVAILABLE", 5)
        stack.model.start()


async def test_model_service_restarted(stack: ChaosStack, drill: Drill):
    """One that drains answers what it took; there is no other replica here, so callers are refused until it is back."""
    async with drill("model_service restarted") as load:
        stack.model.send(signal.SIGTERM)
        await load.until(lambda: stack.model.log.process.poll() is not None, "it ends")
        assert stack.model.log.process.wait() == 0
        stack.model.start()


async def test_model_service_paused(stack: ChaosStack, drill: Drill):
    """It takes calls and does nothing: deadlines pass; what waited is let go of and not answered late."""
    async with drill("model_service paused") as load:
        stack.model.send(signal.SIGSTOP)
        try:
            await load.until_refused("DEADLINE_EXCEEDED", 10)
        finally:
            stack.model.send(signal.SIGCONT)
