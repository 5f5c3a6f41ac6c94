"""Loads a server by h2load, over gRPC or HTTP/1.1, and reads what it says. Knows bytes; knows no message.

h2load has one body for all its requests, so one runs per body. It costs the machine a tenth of what a Python caller
costs, which counts where server and caller share two cores. It takes a gRPC error for an answer, as that is HTTP 200;
so the bytes of the answers are looked at, which an error lacks.
"""

import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

CONNECTIONS, IN_FLIGHT = 16, 64
_TIMEOUT_S = 300.0


@dataclass(frozen=True, slots=True)
class Target:
    """What is asked.

    Attributes:
        transport: How it is spoken to.
        address: host:port.
        path: Of the URL.
        bodies: One for each of the connections: the message of a call, or JSON.
        min_answer_bytes: No answer is shorter.
    """

    transport: Literal["grpc", "http"]
    address: str
    path: str
    bodies: Sequence[bytes]
    min_answer_bytes: int = 1


@dataclass(frozen=True, slots=True)
class Loaded:
    """What came of it.

    Attributes:
        latencies_ms: Of each answer. float64 [count]
        per_s: Answers a second.
    """

    latencies_ms: NDArray[np.float64]
    per_s: float

    @property
    def count(self) -> int:
        """Answers."""
        return len(self.latencies_ms)

    def percentile(self, percent: float) -> float:
        """Returns a latency, in milliseconds."""
        return float(np.percentile(self.latencies_ms, percent))


def closed_loop(target: Target, num_requests: int) -> Loaded:
    """Asks as fast as 64 callers who wait for their answers can.

    They share 16 connections where a connection carries several calls at a time; HTTP/1.1 does not, and gets 64.

    Raises:
        RuntimeError: Something was not answered; says how many.
    """
    each = max(IN_FLIGHT // CONNECTIONS, num_requests // len(target.bodies))
    streams = IN_FLIGHT // CONNECTIONS
    clients = ["-c1", f"-m{streams}"] if target.transport == "grpc" else [f"-c{streams}", "-m1"]
    return _load(target, each, clients)


def steady(target: Target, per_s: float, seconds: float) -> Loaded:
    """Asks at a steady rate, whether answered or not, up to 32 questions a connection.

    HTTP/1.1 carries one question a connection, and gets four times the connections.

    Raises:
        RuntimeError: Something was not answered; says how many.
    """
    rate = per_s / len(target.bodies)
    clients = ["-c1", "-m32", f"--rps={rate}"] if target.transport == "grpc" else ["-c4", "-m1", f"--rps={rate / 4}"]
    return _load(target, max(4, round(rate * seconds)), clients)


def _load(target: Target, each: int, clients: Sequence[str]) -> Loaded:
    program = shutil.which("h2load")
    if program is None:
        raise RuntimeError("there is no h2load: install nghttp2-client")
    with ExitStack() as running:
        folder = Path(running.enter_context(tempfile.TemporaryDirectory()))
        processes = []
        for place, body in enumerate(target.bodies):
            (folder / f"{place}.body").write_bytes(_framed(target, body))
            command = [
                *(program, f"-n{each}", *clients, *_headers(target), f"--log-file={folder / f'{place}.log'}"),
                *("-d", str(folder / f"{place}.body"), f"http://{target.address}{target.path}"),
            ]
            processes.append(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True))
            running.callback(processes[-1].kill)
        said = [process.communicate(timeout=_TIMEOUT_S)[0] for process in processes]
        logs = [_read_log(folder / f"{place}.log") for place in range(len(processes))]
    for text in said:
        _check(text, target, each)
    if (wrong := sum(int((log[:, 1] != 200).sum()) for log in logs)) or any(len(log) != each for log in logs):
        raise RuntimeError(f"{target.path}: {wrong} answers are not 200; the last h2load said:\n{said[-1]}")
    per_s = sum(len(log) * 1e6 / ((log[:, 0] + log[:, 2]).max() - log[:, 0].min()) for log in logs)
    return Loaded(np.concatenate([log[:, 2] for log in logs]) / 1000, float(per_s))


def _read_log(path: Path) -> NDArray[np.float64]:
    """Returns start in µs, status and duration in µs of each request. [n, 3]."""
    return np.loadtxt(path, dtype=np.float64, ndmin=2)[:, :3] if path.stat().st_size else np.zeros((0, 3))


def _check(said: str, target: Target, each: int) -> None:
    lines = {line.partition(":")[0]: line.partition(":")[2] for line in said.splitlines()}
    if "requests" not in lines or "traffic" not in lines:
        raise RuntimeError(f"{target.path}: h2load said:\n{said}")
    counts = {name: int(number) for number, name in (part.split() for part in lines["requests"].split(", "))}
    if counts["succeeded"] != each:
        raise RuntimeError(f"{target.path}: of {each} requests {lines['requests'].strip()}")
    # "1.2KB (1234) total, 56B (56) headers (space savings 9%), 78B (78) data"
    data_bytes = int(lines["traffic"].rpartition("(")[2].partition(")")[0])
    if data_bytes < each * target.min_answer_bytes:
        raise RuntimeError(f"{target.path}: {each} answers of {data_bytes} bytes in all: some are errors")


def _framed(target: Target, body: bytes) -> bytes:
    # A byte that says "not compressed", and the length (gRPC over HTTP/2, Length-Prefixed-Message).
    return b"\0" + len(body).to_bytes(4, "big") + body if target.transport == "grpc" else body


def _headers(target: Target) -> list[str]:
    if target.transport == "grpc":
        return ["-H", "content-type: application/grpc", "-H", "te: trailers"]
    return ["--h1", "-H", "content-type: application/json"]
