"""Makes the base images from Debian's packages, for machines that reach no image registry. Knows no images of ours."""

import hashlib
import os
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from deploy.test_containers.engine import Engine, EngineError, MachineError, run
from deploy.test_containers.phases import phase

_FOLDER = Path(__file__).parent
_DEBIAN = "marquee-stand-in/debian:bookworm"
_PYTHON = "marquee-stand-in/python:3.11-slim-bookworm"
_REDIS = "marquee-stand-in/redis:7-bookworm"
_WHEELS = "marquee-stand-in/wheels"


@dataclass(frozen=True, slots=True)
class BaseImages:
    """What the Dockerfiles and the compose file start from, by the names of their arguments."""

    python_image: str
    redis_image: str


def base_images(engine: Engine) -> BaseImages:
    """Returns the images that PYTHON_IMAGE and REDIS_IMAGE name; where they are unset, stand-ins.

    Raises:
        MachineError: What a stand-in takes is not here, or containers do not reach Debian's packages.
        EngineError: A stand-in could not be made.
    """
    python_image, redis_image = os.environ.get("PYTHON_IMAGE"), os.environ.get("REDIS_IMAGE")
    if python_image is None or redis_image is None:
        _make_debian(engine)
    if python_image is None:
        python_image = _build(engine, _PYTHON, _FOLDER / "python.Dockerfile")
    if redis_image is None:
        redis_image = _build(engine, _REDIS, _FOLDER / "redis.Dockerfile")
    return BaseImages(python_image, redis_image)


def wheels_image(engine: Engine, folders: Sequence[Path]) -> str:
    """Returns an image that holds the torch wheels of these folders in its root; `scratch` if they have none."""
    wheels = [wheel for folder in folders for wheel in sorted(folder.glob("torch-*.whl"))]
    if not wheels:
        return "scratch"
    # An image that is imported again is another image, and all that was built with it would be built again.
    contents = "".join(f"{wheel.name} {wheel.stat().st_size}\n" for wheel in wheels)
    name = f"{_WHEELS}:{hashlib.sha256(contents.encode()).hexdigest()[:12]}"
    if not engine.has_image(name):
        with phase("wheels of this machine as an image"):
            _import(engine, name, lambda archive: _add_all(archive, wheels))
    return name


def _make_debian(engine: Engine) -> None:
    if engine.has_image(_DEBIAN):
        return
    if shutil.which("debootstrap") is None or os.geteuid() != 0:
        raise MachineError(
            "stand-ins for the base images take debootstrap and root; or name images in PYTHON_IMAGE and REDIS_IMAGE"
        )
    with tempfile.TemporaryDirectory(prefix="marquee-debian-") as folder:
        try:
            with phase("debootstrap"):
                run(["debootstrap", "--variant=minbase", "bookworm", folder], os.environ, timeout_s=600)
            with phase("import of the Debian image"):
                _import(engine, _DEBIAN, lambda archive: archive.add(folder, arcname="."))
        except EngineError as error:
            raise MachineError(f"the base image could not be made of Debian's packages:\n{error}") from error


def _reach_debian(engine: Engine) -> None:
    # By itself apt only warns of an archive that it does not reach.
    update = ("apt-get", "--option", "APT::Update::Error-Mode=any", "update")
    try:
        engine.run("run", "--rm", _DEBIAN, *update, timeout_s=180)
    except EngineError as error:
        raise MachineError(f"containers do not run here, or do not reach Debian's packages:\n{error}") from error


def _build(engine: Engine, name: str, dockerfile: Path) -> str:
    if not engine.has_image(name):
        _reach_debian(engine)
        with phase(f"stand-in {name}"), tempfile.TemporaryDirectory(prefix="marquee-context-") as nothing:
            engine.run("build", "--tag", name, "--file", str(dockerfile), nothing, timeout_s=600)
    return name


def _add_all(archive: tarfile.TarFile, files: Sequence[Path]) -> None:
    for file in files:
        archive.add(file, arcname=file.name)


def _import(engine: Engine, name: str, write: Callable[[tarfile.TarFile], None]) -> None:
    """Makes an image of one layer from what `write` puts into an archive."""
    command = [engine.client, "import", "-", name]
    with subprocess.Popen(command, env=dict(engine.environment), stdin=subprocess.PIPE) as importing:
        stream: IO[bytes] | None = importing.stdin
        assert stream is not None
        with tarfile.open(fileobj=stream, mode="w|") as archive:
            write(archive)
        stream.close()
    if importing.returncode != 0:
        raise EngineError(f"{' '.join(command)} exited with {importing.returncode}")
