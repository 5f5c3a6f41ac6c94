"""Runs docker-compose.yml as a project of its own beside any other. Knows no RPC."""

import json
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deploy.test_containers.engine import Engine, EngineError, MachineError, run

ROOT = Path(__file__).parents[2]
_ONE_OFF = "com.docker.compose.oneoff"


@dataclass(frozen=True, slots=True)
class Project:
    """One run of the compose file.

    Attributes:
        engine: Where it runs.
        name: Sets its containers, volumes and networks apart from those of other projects.
        settings: What the compose file reads from the environment.
        files: Compose files by their paths in the repository; a later one overlays those before it.
    """

    engine: Engine
    name: str
    settings: Mapping[str, str]
    files: tuple[str, ...] = ("docker-compose.yml",)

    def compose(self, *arguments: str, timeout_s: float = 120) -> str:
        """Runs a command of Compose and returns what it printed.

        Raises:
            EngineError: The command failed or took too long.
        """
        # The tests' own MARQUEE_DATA names a folder of this machine; the compose file's names a data set.
        inherited = {name: value for name, value in self.engine.environment.items() if name != "MARQUEE_DATA"}
        files = [word for file in self.files for word in ("--file", str(ROOT / file))]
        command = [*compose_program(self.engine), "--project-name", self.name, *files, *arguments]
        return run(command, {**inherited, **self.settings}, timeout_s=timeout_s, folder=ROOT)

    def container_id(self, service: str) -> str:
        """Returns the id of a service's container, running or not.

        Raises:
            EngineError: There is not exactly one.
        """
        ids = self._ids("ps", "--all", "--no-trunc", "--filter", f"label=com.docker.compose.service={service}")
        # One-off containers of `compose run` carry the service's label too.
        ids = [found for found in ids if self._inspect(found)["Config"]["Labels"][_ONE_OFF] == "False"]
        if len(ids) != 1:
            raise EngineError(f"{service} has {len(ids)} containers")
        return ids[0]

    def inspect(self, service: str) -> dict[str, Any]:
        """Returns all that the engine knows of a service's container."""
        return self._inspect(self.container_id(service))

    def health(self, service: str) -> str:
        """Returns starting, healthy or unhealthy; none for a service without a health check."""
        return str(self.inspect(service)["State"].get("Health", {}).get("Status", "none"))

    def left_over(self) -> list[str]:
        """Returns the ids of all containers, volumes and networks of the project."""
        kinds = (("ps", "--all"), ("volume", "ls"), ("network", "ls"))
        return [found for command in kinds for found in self._ids(*command)]

    def _ids(self, *command: str) -> list[str]:
        label = f"label=com.docker.compose.project={self.name}"
        return self.engine.run(*command, "--quiet", "--filter", label).split()

    def _inspect(self, container: str) -> dict[str, Any]:
        (found,) = json.loads(self.engine.run("inspect", container))
        return dict(found)


def compose_program(engine: Engine) -> list[str]:
    """Returns how Compose is called here: the plugin of version 2, else the program of version 1.

    Raises:
        MachineError: There is neither.
    """
    plugin = [engine.client, "compose"]
    if subprocess.run([*plugin, "version"], capture_output=True, timeout=20, check=False).returncode == 0:
        return plugin
    if shutil.which("docker-compose") is None:
        raise MachineError("there is neither `docker compose` nor docker-compose: apt install docker-compose")
    return ["docker-compose"]
