"""How the stack ends: each server stops by itself when it is told to, and `down` leaves nothing. Runs last."""

import pytest

from deploy.test_containers.compose import Project
from deploy.test_containers.engine import EngineError

pytestmark = pytest.mark.containers


@pytest.mark.parametrize("service", ["model_service", "feature_service"])
def test_a_server_stops_when_told_to(stack: Project, service: str) -> None:
    """SIGTERM reaches the process, which drains and exits by itself instead of being killed."""
    stack.compose("stop", "--timeout", "30", service)

    assert stack.inspect(service)["State"]["ExitCode"] == 0


def test_down_leaves_nothing(stack: Project) -> None:
    """Containers, volumes and networks are gone."""
    assert stack.left_over()

    stack.compose("--profile", "rebuild", "down", "--volumes", "--timeout", "10")

    assert stack.left_over() == []
    with pytest.raises(EngineError, match="redis has 0 containers"):
        stack.container_id("redis")
