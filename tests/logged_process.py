"""Runs one of our services as a process of its own, whose log is read as it grows. Knows no service by name."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from feature_service import child_process

# The machine may be busy with other tests: a start that takes a second has minutes.
_PATIENCE_S = 180.0


class LoggedProcess:
    """A running `python -m MODULE`.

    Start it in the main thread: Linux ends it with the thread that started it.
    """

    def __init__(self, module: str, folder: Path, variables: Mapping[str, str]) -> None:
        """Starts it; `variables` are added to our environment."""
        self._log = (folder / f"{module}-{time.monotonic_ns()}.log").open("w+b")
        # Ends with this process, also if that is killed.
        ends_with_us = (sys.executable, "-I", child_process.__file__, str(os.getpid()))
        self.process = subprocess.Popen(
            [*ends_with_us, sys.executable, "-m", module],
            env={**os.environ, **variables},
            stderr=self._log,
        )

    def said(self) -> str:
        """Returns all that it wrote."""
        self._log.flush()
        return Path(self._log.name).read_text()

    def events(self) -> list[dict[str, Any]]:
        """Returns the lines of its log."""
        return [json.loads(line) for line in self.said().splitlines() if line.startswith("{")]

    def wait_for(self, event: str, **fields: object) -> dict[str, Any]:
        """Returns the log line of an event, once it is there."""
        give_up = time.monotonic() + _PATIENCE_S
        while (found := self._find(event, fields)) is None:
            assert time.monotonic() < give_up, f"no {event} in {self.events()}"
            time.sleep(0.05)
        return found

    async def has_said(self, event: str, **fields: object) -> dict[str, Any]:
        """Returns the log line of an event, once it is there, and lets other tasks run meanwhile."""
        give_up = time.monotonic() + _PATIENCE_S
        while (found := self._find(event, fields)) is None:
            assert time.monotonic() < give_up, f"no {event} in {self.events()}"
            await asyncio.sleep(0.05)
        return found

    def _find(self, event: str, fields: Mapping[str, object]) -> dict[str, Any] | None:
        for line in self.events():
            if line["event"] == event and fields.items() <= line.items():
                return line
        assert self.process.poll() is None, self.said()
        return None

    def address(self) -> str:
        """Returns where it listens, once it does."""
        return str(self.wait_for("listening")["address"])

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Sends a signal and returns the exit status."""
        self.process.send_signal(number)
        return self.process.wait(30)
