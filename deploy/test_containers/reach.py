"""Finds out in seconds what a build of many minutes would: whether a container reaches the index of Python packages."""

import tempfile
from pathlib import Path

from deploy.test_containers.engine import Engine, EngineError, MachineError
from deploy.test_containers.images import build_secrets
from deploy.test_containers.phases import phase
from deploy.test_containers.pip_settings import PipSettings

_FOLDER = Path(__file__).parent


def reach_index(engine: Engine, python_image: str) -> None:
    """Fetches one small package in a build, by this machine's way to packages.

    Raises:
        MachineError: It did not come; the text ends with what the build printed.
    """
    with tempfile.TemporaryDirectory(prefix="marquee-reach-") as name:
        folder = Path(name)
        (folder / "context").mkdir()
        build = ("build", "--progress", "plain", "--no-cache", "--file", str(_FOLDER / "reach.Dockerfile"))
        arguments = ("--build-arg", f"PYTHON_IMAGE={python_image}", "--output", str(folder / "fetched"))
        secrets = build_secrets(PipSettings.of_this_machine(), folder)
        try:
            with phase("a package fetched from within a container"):
                engine.run(*build, *arguments, *secrets, str(folder / "context"), timeout_s=180)
        except EngineError as error:
            raise MachineError(f"containers do not reach the index of Python packages:\n{error}") from error
