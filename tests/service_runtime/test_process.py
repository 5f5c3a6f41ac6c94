"""A process ends in two stages."""

import signal
import subprocess
import sys

import pytest

PROCESS = """
import asyncio
import threading
import time
from service_runtime import logs
from service_runtime.health import Health
from service_runtime.server import Server, run

async def main(stop):
    async with Server([], Health([], []), listen="127.0.0.1:0", drain_timeout_s=1.0):
        print("up", flush=True)
        await stop.wait()
        {after}

logs.configure("INFO")
run(main)
"""


def start(after: str) -> subprocess.Popen:
    process = subprocess.Popen(
        [sys.executable, "-c", PROCESS.format(after=after)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "up\n"
    return process


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_first_signal_drains_and_exits_0(number):
    """SIGTERM and Ctrl-C end a process well."""
    process = start("pass")

    process.send_signal(number)

    _, err = process.communicate(timeout=20)
    assert process.returncode == 0, err
    assert '"event": "stopped"' in err


def test_a_thread_in_the_middle_of_something_is_not_waited_for():
    """What it makes would be used by nobody; the log tells of it."""
    process = start("threading.Thread(target=time.sleep, args=(60,), name='indexing').start()")

    process.send_signal(signal.SIGTERM)

    _, err = process.communicate(timeout=20)
    assert process.returncode == 0, err
    assert '"event": "stopped"' in err
    assert '"threads_left"' in err
    assert "indexing" in err


@pytest.mark.parametrize("work", ["asyncio.sleep(60)", "asyncio.to_thread(time.sleep, 60)"], ids=["task", "thread"])
def test_the_second_signal_ends_at_once(work):
    """Who asks twice waits neither for the drain nor for a thread in the middle of something."""
    process = start(f'print("draining", flush=True); await {work}')
    process.send_signal(signal.SIGTERM)
    assert process.stdout is not None
    assert process.stdout.readline() == "draining\n"

    process.send_signal(signal.SIGTERM)

    _, err = process.communicate(timeout=20)
    assert process.returncode == 1, err
