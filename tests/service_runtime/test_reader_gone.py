"""`--help | head -1` ends as it does with other tools."""

import os
import subprocess
import sys

import pytest

PROCESS = """
from service_runtime.reader_gone import quiet_when_reader_is_gone
with quiet_when_reader_is_gone():
    print("a line")
print("never reached", file=__import__("sys").stderr)
"""
COMMANDS = (
    ["-m", "feature_service", "--help"],
    ["-m", "feature_service", "backup", "--help"],
    ["-m", "service_runtime.security", "somebody"],
)


def start(arguments: list[str], unbuffered: str = "") -> subprocess.Popen[bytes]:
    read, write = os.pipe()
    os.close(read)
    environment = {**os.environ, "PYTHONUNBUFFERED": unbuffered}
    try:
        return subprocess.Popen([sys.executable, *arguments], stdout=write, stderr=subprocess.PIPE, env=environment)
    finally:
        os.close(write)


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_process_that_nobody_reads_any_more_ends_quietly(unbuffered):
    """No traceback and no other word, whether Python writes at once or at the end."""
    process = start(["-c", PROCESS], unbuffered)

    _, err = process.communicate(timeout=60)

    assert err == b""
    assert process.returncode == 1


def test_whatever_prints_for_a_person_does_so():
    """The settings, the words of an operator, and a new token."""
    processes = [start(command) for command in COMMANDS]

    ended = [(process.communicate(timeout=60)[1], process.returncode) for process in processes]

    assert ended == [(b"", 1)] * len(COMMANDS)
