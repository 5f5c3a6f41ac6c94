"""Builds the images of our services from their Dockerfiles, unchanged."""

import tempfile
from collections.abc import Sequence
from pathlib import Path

from deploy.test_containers.engine import Engine
from deploy.test_containers.phases import phase
from deploy.test_containers.pip_settings import PipSettings
from deploy.test_containers.stand_ins import wheels_image

ROOT = Path(__file__).parents[2]
SERVICES = ("feature_service", "model_service", "trainer")


def build_images(
    engine: Engine, python_image: str, tag: str, *, services: Sequence[str] = SERVICES, source: Path = ROOT
) -> dict[str, str]:
    """Builds each service's image with this machine's way to packages, and returns the images' names by service.

    Args:
        engine: Where they are built.
        python_image: What they start from.
        tag: What tells them from others of their names.
        services: Whose images.
        source: The repository, or a copy of what the images take from it.

    Raises:
        EngineError: A build failed; the text ends with what it printed.
    """
    pip = PipSettings.of_this_machine()
    wheels = wheels_image(engine, pip.wheel_folders)
    names = {}
    with tempfile.TemporaryDirectory(prefix="marquee-secrets-") as folder:
        secrets = build_secrets(pip, Path(folder))
        for service in services:
            names[service] = f"marquee/{service}:{tag}"
            arguments = ["--build-arg", f"PYTHON_IMAGE={python_image}"]
            if service != "feature_service":
                arguments += ["--build-arg", f"WHEELS_IMAGE={wheels}"]
            with phase(f"build of {names[service]}"):
                engine.run(
                    *("build", "--progress", "plain", "--tag", names[service]),
                    *("--file", str(source / service / "Dockerfile")),
                    *arguments,
                    *secrets,
                    str(source),
                    timeout_s=900,
                )
            print(f"{names[service]}: {engine.image_size_bytes(names[service]) / 1e6:.0f} MB", flush=True)
    return names


def build_secrets(pip: PipSettings, folder: Path) -> list[str]:
    """Writes a pip.conf into a folder and returns the options by which a build reads it, and the certificates."""
    pip_conf = folder / "pip.conf"
    pip.write(pip_conf)
    secrets = ["--secret", f"id=pip_conf,src={pip_conf}"]
    if pip.ca_bundle is not None:
        secrets += ["--secret", f"id=ca_bundle,src={pip.ca_bundle}"]
    return secrets
