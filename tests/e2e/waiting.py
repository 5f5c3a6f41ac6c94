"""Waits for what containers come to. Knows the compose file's servers; asks none of them."""

import time
from collections.abc import Callable

from deploy.test_containers.compose import Project

SERVERS = ("redis", "feature_service", "model_service")
HEALTHY_WITHIN_S = 180.0


def wait_until(holds: Callable[[], bool], timeout_s: float) -> None:
    """Returns once the condition holds; fails if it does not in time."""
    give_up_at = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < give_up_at, f"still not so after {timeout_s} s"
        time.sleep(1)


def wait_for_health(stack: Project) -> None:
    """Returns once every server is healthy; fails with the log of the one that is not."""
    for service in SERVERS:
        try:
            wait_until(lambda service=service: stack.health(service) == "healthy", HEALTHY_WITHIN_S)  # type: ignore[misc]
        except AssertionError as error:
            raise AssertionError(f"{service}: {stack.compose('logs', '--tail=30', service)}") from error
