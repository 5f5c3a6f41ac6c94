"""Starts one of our services as a process, waits until it serves, stops it. Knows no model, data set or table."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

STOP_TIMEOUT_S = 20.0
LAST_LOG_LINES = 15
# So that processes of one machine do not meet on the default; a setting or the environment names a port.
_FREE_PORTS = dict.fromkeys(("FEATURE_METRICS_LISTEN", "MODEL_METRICS_LISTEN", "MODEL_ADMIN_LISTEN"), "127.0.0.1:0")


class StackError(Exception):
    """A process of the local stack did not start or did not stop as it should; the message is for a person."""


def free_address() -> str:
    """Returns a loopback HOST:PORT that nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"


class ServiceProcess:
    """One `python -m MODULE` that answers grpc.health.v1 at an address; a context manager that always stops it."""

    def __init__(self, module: str, address: str, settings: Mapping[str, str], log: Path) -> None:
        self.module = module
        self.address = address
        self.log = log
        self._settings = settings
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """Process id, None before the start and after the stop."""
        return self._process.pid if self._process is not None else None

    def __enter__(self) -> Self:
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as log:
            # A session of its own: Ctrl-C at the terminal reaches only us, and we stop the services in their order.
            self._process = subprocess.Popen(
                [sys.executable, "-m", self.module],
                env={**_FREE_PORTS, **os.environ, **self._settings},
                stdout=log,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def wait_until_serving(self, timeout_s: float) -> None:
        """Returns once the process says SERVING.

        Raises:
            StackError: It ended, or did not serve within the timeout; carries the end of its log.
        """
        deadline = time.monotonic() + timeout_s
        status = "no answer"
        with grpc.insecure_channel(self.address) as channel:
            health = health_pb2_grpc.HealthStub(channel)
            while time.monotonic() < deadline:
                self.raise_if_ended()
                try:
                    answer = health.Check(health_pb2.HealthCheckRequest(), timeout=1.0)
                except grpc.RpcError as error:
                    status = str(error.code())
                else:
                    if answer.status == health_pb2.HealthCheckResponse.SERVING:
                        return
                    status = health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)
                time.sleep(0.1)
        raise StackError(f"{self.module} does not serve after {timeout_s:.0f} s ({status}).\n{self.end_of_log()}")

    def raise_if_ended(self) -> None:
        """Does nothing while the process runs.

        Raises:
            StackError: It has ended by itself; carries the end of its log.
        """
        if self._process is None or self._process.poll() is not None:
            raise StackError(f"{self.module} ended by itself.\n{self.end_of_log()}")

    def stop(self) -> None:
        """Asks the process to drain and exit, and kills it only if it does not.

        Raises:
            StackError: It had to be killed, or ended with an error.
        """
        process, self._process = self._process, None
        if process is None:
            return
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        try:
            status = process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            late = f"{self.module} did not stop within {STOP_TIMEOUT_S:.0f} s."
            raise StackError(f"{late}\n{self.end_of_log()}") from None
        if status != 0:
            raise StackError(f"{self.module} ended with status {status}.\n{self.end_of_log()}")

    def end_of_log(self) -> str:
        """Returns the last lines that the process wrote, and where the rest is."""
        lines = self.log.read_text(errors="replace").splitlines()[-LAST_LOG_LINES:]
        return "\n".join([f"The end of {self.log}:", *lines])
