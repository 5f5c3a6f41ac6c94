"""The suite of containers runs where they can; where they cannot, the last line says so, and nothing is red for it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

SUITE = ("/bin/sh", "-c", 'echo "the suite ran on $DOCKER_HOST"; exit 7')
NAMED_BASES = {"PYTHON_IMAGE": "python:3.11", "REDIS_IMAGE": "redis:7"}

# Stands in for Docker's client on a machine that has what a test says: no other machine is at hand.
DOCKER = """#!/bin/sh
case "$1" in
  --version) echo 'Docker version 20.10.24, build 1' ;;
  info) test "$ANSWERS" = yes ;;
  run) test "$REACHES_DEBIAN" = yes ;;
  build) test "$BUILDS" = yes || { echo 'ERROR: no route to host'; exit 1; } ;;
  image) case "$*" in *debian*) echo 0123 ;; esac ;;
esac
"""


def run_suite(folder: Path, **machine: str) -> subprocess.CompletedProcess[str]:
    """Runs what CI runs, on a PATH of nothing but that folder and with this environment."""
    environment = {"PATH": str(folder), "HOME": os.environ["HOME"], "DOCKER_HOST": "unix:///nobody", **machine}
    command = [sys.executable, "-m", "deploy.test_containers", *SUITE]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of programs: Docker's client."""
    client = tmp_path / "docker"
    client.write_text(DOCKER, encoding="utf-8")
    client.chmod(0o755)
    return tmp_path


def test_the_suite_decides_where_containers_run(folder: Path) -> None:
    """What it exits with is what CI sees: a suite that fails is no lack of the machine."""
    done = run_suite(folder, ANSWERS="yes", BUILDS="yes", **NAMED_BASES)

    assert done.returncode == 7
    assert done.stdout.splitlines()[-1] == "the suite ran on unix:///nobody"
    assert "NOT run" not in done.stderr


@pytest.mark.parametrize(
    ("machine", "reason"),
    [
        ({"ANSWERS": "no"}, "no Docker engine answers, and starting one takes dockerd and root: apt install docker.io"),
        (
            {"ANSWERS": "yes", "BUILDS": "no", **NAMED_BASES},
            "containers do not reach the index of Python packages",
        ),
        (
            {"ANSWERS": "yes", "REACHES_DEBIAN": "no"},
            "containers do not run here, or do not reach Debian's packages",
        ),
    ],
    ids=["no engine", "no index", "no Debian"],
)
def test_what_a_machine_lacks_is_its_last_line(folder: Path, machine: dict[str, str], reason: str) -> None:
    """Nobody takes a green run for one that tested containers."""
    done = run_suite(folder, **machine)

    assert done.returncode == 0
    assert done.stderr.splitlines()[-1] == f"The container tests were NOT run: {reason}"
    assert ("ERROR: no route to host" in done.stderr) == (machine.get("BUILDS") == "no")
    assert "the suite ran" not in done.stdout


def test_a_machine_without_docker_is_told(tmp_path: Path) -> None:
    """No client at all is a lack like any other."""
    done = run_suite(tmp_path)

    assert done.returncode == 0
    assert done.stderr.startswith("The container tests were NOT run: no docker on the PATH builds with BuildKit")


def test_a_stand_in_that_does_not_build_is_ours(folder: Path) -> None:
    """Containers run and reach Debian: then it is the Dockerfile, and CI turns red."""
    done = run_suite(folder, ANSWERS="yes", REACHES_DEBIAN="yes", BUILDS="no")

    assert done.returncode == 1
    assert "NOT run" not in done.stderr
