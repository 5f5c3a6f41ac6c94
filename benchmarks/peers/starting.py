"""Starts the peers as processes and knows how each is configured and asked. Knows no towers and no figure."""

import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import grpc

from benchmarks.peers import asking
from deploy.local.processes import free_address

PYTHON = Path(".venv-peers/bin/python")
_IMPORTED = (".", "protos", "client")
_START_TIMEOUT_S = 120.0

Ask = Callable[[Sequence[Mapping[str, Any]]], list[dict[str, Any]]]


@dataclass(frozen=True, slots=True)
class Running:
    """A server that answers.

    Attributes:
        pid: Its first process; what it uses counts with all its children.
        transport: How it is spoken to.
        address: host:port.
        paths: Of the URL, by kind of question.
        bodies: Gives the bytes that ask questions.
        ask: Asks questions, many at a time, and gives the answers.
    """

    pid: int
    transport: Literal["grpc", "http"]
    address: str
    paths: Mapping[str, str]
    bodies: Callable[[Sequence[Mapping[str, Any]]], list[bytes]]
    ask: Ask


@dataclass(frozen=True, slots=True)
class Peer:
    """One that is compared with.

    Attributes:
        name: What the table calls it.
        configured: How, in words.
        start: Starts it on a folder, with a log.
    """

    name: str
    configured: str
    start: Callable[[Path, Path], Any]


@contextmanager
def _process(command: Sequence[str], folder: Path, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    environment = {
        **os.environ,
        "PEERS_FOLDER": str(folder.resolve()),
        "PYTHONPATH": os.pathsep.join(str(Path(each).resolve()) for each in _IMPORTED),
        "OMP_NUM_THREADS": "1",
    }
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as written:
        process = subprocess.Popen(
            command, env=environment, stdout=written, stderr=subprocess.STDOUT, start_new_session=True
        )
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            process.wait(20)
        with suppress(ProcessLookupError):
            # Its session is its own: whatever of it is left belongs to it.
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _wait(process: "subprocess.Popen[bytes]", log: Path, is_ready: Callable[[], object]) -> None:
    give_up = time.monotonic() + _START_TIMEOUT_S
    while True:
        try:
            is_ready()
        except (OSError, grpc.RpcError, RuntimeError) as error:
            if process.poll() is not None or time.monotonic() > give_up:
                end = "\n".join(log.read_text(errors="replace").splitlines()[-15:])
                raise RuntimeError(f"{process.args!r} does not answer ({error}):\n{end}") from error
            time.sleep(0.3)
        else:
            return


@contextmanager
def mosec(folder: Path, log: Path) -> Iterator[Running]:
    """Runs Mosec."""
    address = free_address()
    host, port = address.split(":")
    command = [str(PYTHON), "-m", "benchmarks.peers.of_mosec", "--address", host, "--port", port]
    with _process(command, folder, log) as process:
        paths = {"rate": "/predict", "top": "/top"}
        yield _http(process, address, paths, log)


@contextmanager
def litserve(folder: Path, log: Path) -> Iterator[Running]:
    """Runs LitServe."""
    address = free_address()
    command = [str(PYTHON), "-m", "benchmarks.peers.of_litserve", address.split(":")[1]]
    with _process(command, folder, log) as process:
        yield _http(process, address, {"rate": "/predict", "top": "/predict"}, log)


def _http(process: "subprocess.Popen[bytes]", address: str, paths: Mapping[str, str], log: Path) -> Running:
    running = Running(process.pid, "http", address, paths, asking.as_json, asking.over_http(address, paths))

    def is_ready() -> None:
        # Not a question: of a worker that still loads, one would time out and be counted against it.
        urllib.request.urlopen(f"http://{address}/{'metrics' if '/top' in paths.values() else 'health'}", timeout=5)

    _wait(process, log, is_ready)
    return running


@contextmanager
def triton(folder: Path, log: Path) -> Iterator[Running]:
    """Runs Triton."""
    http_address, address = free_address(), free_address()
    ports = [each.split(":")[1] for each in (http_address, address)]
    with _process([str(PYTHON), "-m", "benchmarks.peers.of_triton", *ports], folder, log) as process:
        for model in ("predict", "top"):
            _wait(
                process,
                log,
                lambda model=model: urllib.request.urlopen(f"http://{http_address}/v2/models/{model}/ready", timeout=5),  # type: ignore[misc]
            )
        infer = "/inference.GRPCInferenceService/ModelInfer"
        yield Running(
            process.pid,
            "grpc",
            address,
            {"rate": infer, "top": infer},
            lambda questions: asking.triton_bodies(PYTHON, questions),
            lambda questions: asking.through_triton(PYTHON, address, questions),
        )


@contextmanager
def _grpcio(kind: str, folder: Path, log: Path) -> Iterator[Running]:
    address = free_address()
    command = [sys.executable, "-m", "benchmarks.peers.of_grpcio", kind, address]
    with _process(command, folder, log) as process:
        with grpc.insecure_channel(address) as channel:
            _wait(process, log, lambda: grpc.channel_ready_future(channel).result(timeout=_START_TIMEOUT_S))
        yield Running(process.pid, "grpc", address, asking.OUR_PATHS, asking.as_ours, asking.over_grpc(address))


PEERS = (
    Peer("Mosec", "0.9, one worker, batches of 64 or 2 ms, JSON over HTTP/1.1", mosec),
    Peer("LitServe", "0.2, one worker, batches of 64 or 2 ms, fast_queue, no access log, JSON over HTTP/1.1", litserve),
    Peer("Triton", "pytriton 0.7, dynamic batcher of 64 or 1 ms, its gRPC port", triton),
    Peer("grpcio, threads", "grpc.server of 10 threads, no batching", lambda *given: _grpcio("threads", *given)),
    Peer("grpcio, asyncio", "grpc.aio.server, no batching", lambda *given: _grpcio("asyncio", *given)),
)
