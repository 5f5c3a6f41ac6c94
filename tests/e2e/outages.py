"""Ends the process of a container from outside, and reads how long containers took to start. Knows no RPC."""

from datetime import datetime

from deploy.test_containers.compose import Project
from deploy.test_containers.stand_ins import BaseImages
from tests.e2e.waiting import wait_until

_BACK_WITHIN_S = 60.0
# What each server says when it can do its work.
_AT_WORK = {
    "redis": "Ready to accept connections",
    "feature_service": '"event": "dependency_found"',
    "model_service": '"event": "serving"',
}


def kill_process(stack: Project, bases: BaseImages, service: str) -> None:
    """Ends what a container runs, as the kernel does; returns once the engine has it running again.

    `docker kill` is no such thing: after it the engine takes the container for stopped by a person.
    """
    before = stack.inspect(service)
    kill = ["run", "--rm", "--pid", "host", "--user", "0", "--entrypoint", "sh", bases.redis_image]
    stack.engine.run(*kill, "-c", f"kill -9 {before['State']['Pid']}")

    def is_back() -> bool:
        now = stack.inspect(service)
        return bool(now["RestartCount"] > before["RestartCount"] and now["State"]["Running"])

    wait_until(is_back, _BACK_WITHIN_S)


def start_s(stack: Project, service: str) -> float:
    """Returns how long a server's process took from its start until it could do its work.

    Raises:
        AssertionError: It never could.
    """
    began = stack.inspect(service)["State"]["StartedAt"]
    lines = stack.engine.logs(stack.container_id(service), since=began).splitlines()
    at_work = next((line for line in lines if _AT_WORK[service] in line), None)
    assert at_work is not None, f"{service} never said {_AT_WORK[service]}: {lines[-10:]}"
    return (_moment(at_work.split(" ", 1)[0]) - _moment(began)).total_seconds()


def _moment(text: str) -> datetime:
    """Reads the engine's time; Python knows no nanoseconds."""
    seconds, _, fraction = text.rstrip("Z").partition(".")
    return datetime.fromisoformat(f"{seconds}.{fraction[:6]:0<6}+00:00")
