"""Finds a Docker engine, or starts one for as long as it is needed. Knows no images of ours."""

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

ROOT_VARIABLE = "MARQUEE_DOCKER_ROOT"
"""Names the folder where an engine that is started here keeps its images, so that a later run finds them."""

_START_TIMEOUT_S = 60
_LAYERS_KEPT = "6GB"
_LAST_CLIENT_WITH_BUILDKIT = 22


class EngineError(Exception):
    """Docker is absent, or did not do what it was told; the text says what to do or what it printed."""


class MachineError(EngineError):
    """This machine cannot run containers that reach packages: its first line says why. Nothing of ours was tried."""


@dataclass(frozen=True, slots=True)
class Engine:
    """A running Docker engine.

    Attributes:
        client: The docker program; it can build with BuildKit.
        environment: What the client needs in its environment to reach the engine.
    """

    client: str
    environment: Mapping[str, str]

    def run(self, *arguments: str, stdin: IO[bytes] | None = None, timeout_s: float = 120) -> str:
        """Runs a docker command and returns what it printed.

        Raises:
            EngineError: The command failed or took too long.
        """
        return run([self.client, *arguments], self.environment, stdin=stdin, timeout_s=timeout_s)

    def logs(self, container: str, *, since: str) -> str:
        """Returns what a container wrote since a moment, a time of the engine before each line.

        Raises:
            EngineError: The command failed.
        """
        command = [self.client, "logs", "--timestamps", "--since", since, container]
        done = subprocess.run(
            command, env=dict(self.environment), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False
        )
        if done.returncode != 0:
            raise EngineError(f"{' '.join(command)} exited with {done.returncode}")
        return done.stdout.decode(errors="replace")

    def has_image(self, name: str) -> bool:
        """Tells whether an image is there."""
        return bool(self.run("image", "ls", "--quiet", name).strip())

    def image_size_bytes(self, name: str) -> int:
        """Returns the size of an image with all its layers."""
        return int(self.run("image", "inspect", "--format", "{{.Size}}", name))


def run(
    command: Sequence[str],
    environment: Mapping[str, str],
    *,
    stdin: IO[bytes] | None = None,
    timeout_s: float = 120,
    folder: Path | None = None,
) -> str:
    """Runs a command and returns what it printed to its output.

    Raises:
        EngineError: The command failed or took too long; the end of what it printed is in the text.
    """
    try:
        done = subprocess.run(
            command,
            env=dict(environment),
            cwd=folder,
            stdin=stdin or subprocess.DEVNULL,
            capture_output=True,
            timeout=timeout_s,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise EngineError(f"{' '.join(command)} took more than {timeout_s:.0f} s") from error
    output, errors = (stream.decode(errors="replace") for stream in (done.stdout, done.stderr))
    if done.returncode != 0:
        raise EngineError(f"{' '.join(command)} exited with {done.returncode}:\n{(output + errors)[-6000:]}")
    return output


@contextmanager
def running_engine() -> Iterator[Engine]:
    """Gives the engine of this machine; if none answers, one that is stopped at the end.

    Raises:
        MachineError: There is no Docker client that builds with BuildKit, or no engine and none could be started.
    """
    client = _client()
    environment = {**os.environ, "DOCKER_BUILDKIT": "1"}
    if _answers(client, environment):
        yield Engine(client, environment)
        return
    if shutil.which("dockerd") is None or os.geteuid() != 0:
        raise MachineError("no Docker engine answers, and starting one takes dockerd and root: apt install docker.io")
    # A socket's path has at most 107 bytes, so it gets a folder of its own near the root.
    runtime = Path(tempfile.mkdtemp(prefix="marquee-engine-"))
    address = f"unix://{runtime}/docker.sock"
    images = Path(os.environ.get(ROOT_VARIABLE) or Path.home() / ".cache" / "marquee" / "docker")
    images.mkdir(parents=True, exist_ok=True)
    command = ["dockerd", "--host", address, "--data-root", str(images)]
    command += ["--exec-root", str(runtime / "exec"), "--pidfile", str(runtime / "docker.pid")]
    with (runtime / "dockerd.log").open("wb") as log:
        daemon = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
    environment["DOCKER_HOST"] = address
    try:
        _wait_for(client, environment, daemon, runtime / "dockerd.log")
        engine = Engine(client, environment)
        yield engine
        _drop_what_is_replaced(engine)
    finally:
        daemon.terminate()
        daemon.wait(timeout=60)
        shutil.rmtree(runtime, ignore_errors=True)


def _client() -> str:
    """Returns the first docker program of the PATH that can build with BuildKit: before version 23 all could alone."""
    for folder in os.get_exec_path():
        client = shutil.which("docker", path=folder)
        if client is None:
            continue
        has_buildx = subprocess.run([client, "buildx", "version"], capture_output=True, timeout=20, check=False)
        version = run([client, "--version"], os.environ).removeprefix("Docker version ")
        if has_buildx.returncode == 0 or int(version.split(".")[0]) <= _LAST_CLIENT_WITH_BUILDKIT:
            return client
    raise MachineError("no docker on the PATH builds with BuildKit: install docker-buildx, or Debian's docker.io")


def _drop_what_is_replaced(engine: Engine) -> None:
    """Removes what newer builds took the place of: each run after a change leaves some gigabytes of it."""
    try:
        engine.run("image", "prune", "--force")
        engine.run("builder", "prune", "--force", "--keep-storage", _LAYERS_KEPT)
    except EngineError as error:
        # Whatever the engine was started for went well: the next run goes on from here.
        print(f"not all that newer builds took the place of was removed: {error}", flush=True)


def _answers(client: str, environment: Mapping[str, str]) -> bool:
    asked = subprocess.run([client, "info"], env=dict(environment), capture_output=True, timeout=60, check=False)
    return asked.returncode == 0


def _wait_for(client: str, environment: Mapping[str, str], daemon: subprocess.Popen[bytes], log: Path) -> None:
    give_up_at = time.monotonic() + _START_TIMEOUT_S
    while not _answers(client, environment):
        if daemon.poll() is not None or time.monotonic() > give_up_at:
            told = log.read_text(errors="replace")[-3000:]
            raise MachineError(f"no Docker engine answers, and dockerd did not start:\n{told}")
        time.sleep(0.5)
