"""The whole stack in containers: an engine, base images, our images, and compose up with no setting at all."""

import os
import socket
from collections.abc import Iterator

import pytest

from deploy.test_containers.compose import Project
from deploy.test_containers.engine import Engine, EngineError, running_engine
from deploy.test_containers.images import build_images
from deploy.test_containers.phases import phase
from deploy.test_containers.stand_ins import BaseImages, base_images
from tests.chaos.drills import print_table

TAG = "e2e"
DRILLS = "drills on containers"


@pytest.fixture(scope="session")
def engine() -> Iterator[Engine]:
    """A Docker engine: the one of this machine, or one that lives as long as the tests."""
    with running_engine() as engine:
        yield engine


@pytest.fixture(scope="session")
def bases(engine: Engine) -> BaseImages:
    """What the Dockerfiles and the compose file start from."""
    return base_images(engine)


@pytest.fixture(scope="session")
def images(engine: Engine, bases: BaseImages) -> dict[str, str]:
    """The image of each service, built from its Dockerfile."""
    return build_images(engine, bases.python_image, TAG)


@pytest.fixture(scope="session")
def stack(engine: Engine, bases: BaseImages, images: dict[str, str]) -> Iterator[Project]:
    """The compose file's services after `up`, with data made, a model trained, features published."""
    settings = {
        "MARQUEE_TAG": TAG,
        "PYTHON_IMAGE": bases.python_image,
        "REDIS_IMAGE": bases.redis_image,
        "FEATURE_PORT": str(_free_port()),
        "MODEL_PORT": str(_free_port()),
    }
    project = Project(engine, f"marquee-e2e-{os.getpid()}", settings)
    try:
        with phase("compose up: data, training, publishing, serving"):
            try:
                project.compose("up", "--detach", "--no-build", timeout_s=900)
            except EngineError as error:
                raise EngineError(f"{error}\n{project.compose('logs', '--tail=40')}") from error
        yield project
    finally:
        project.compose("--profile", "rebuild", "down", "--volumes", "--timeout", "10")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Prints the table of drills on containers."""
    print_table(terminalreporter, DRILLS)
