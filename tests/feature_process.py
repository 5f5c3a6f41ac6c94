"""Runs feature_service as a process of its own, whose log is read as it grows."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from feature_service import child_process


class FeatureProcess:
    """A running feature_service."""

    def __init__(self, folder: Path, **settings: str) -> None:
        """Starts it; the settings are FEATURE_* variables."""
        self._log = (folder / f"log-{time.monotonic_ns()}").open("w+b")
        variables = {"FEATURE_LISTEN": "127.0.0.1:0", "FEATURE_DATA_DIR": str(folder / "data"), **settings}
        # Ends with this process, also if that is killed.
        ends_with_us = (sys.executable, "-I", child_process.__file__, str(os.getpid()))
        self.process = subprocess.Popen(
            [*ends_with_us, sys.executable, "-m", "feature_service"],
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
        for _ in range(600):
            for line in self.events():
                if line["event"] == event and fields.items() <= line.items():
                    return line
            assert self.process.poll() is None, self.said()
            time.sleep(0.05)
        raise AssertionError(f"no {event} in {self.events()}")

    def address(self) -> str:
        """Returns where it listens, once it does."""
        return str(self.wait_for("listening")["address"])

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Sends a signal and returns the exit status."""
        self.process.send_signal(number)
        return self.process.wait(30)
