"""Runs several processes that serve on one port, and starts anew those that die. Knows processes; knows no model.

Each worker is an interpreter of its own, spawned before anything of gRPC exists here, and listens on the same port
(SO_REUSEPORT): the kernel gives each new connection to one of them. This process takes no calls. It holds the port,
shows the metrics of all, and passes on the end: a worker leaves when its pipe closes, so none outlives this process.
"""

import asyncio
import importlib
import multiprocessing
import os
import random
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection

import structlog
from prometheus_client import CollectorRegistry

from model_service.settings import ModelSettings
from model_service.worker_metrics import WorkerMetrics
from service_runtime.metrics import Metrics
from service_runtime.metrics_server import MetricsServer
from service_runtime.server import StartError
from service_runtime.settings import OFF

_log = structlog.get_logger(__name__)

_CANNOT_START = 2
"""Exit status of a process that waiting would not help."""
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.5, 30.0
_WELL_AFTER_S = 60.0
"""A worker that lived so long died of something new: the next is started at once."""
_BEYOND_THE_DRAIN_S = 15.0
_ANY_PORT_HERE = "127.0.0.1:0"

WorkerMain = Callable[[ModelSettings, Connection], None]
"""Serves until its connection closes; sends the address of its metrics once it has one."""


@dataclass(slots=True)
class _Worker:
    process: multiprocessing.process.BaseProcess
    pipe: Connection
    metrics_address: str = ""


class Workers:
    """The workers of one service."""

    def __init__(self, settings: ModelSettings, main: str, rng: random.Random) -> None:
        """Stores what to run.

        Args:
            settings: Those of the service; how many workers is one of them.
            main: Names the `WorkerMain` that each worker runs, as "module:function": it is found in a new interpreter.
            rng: Spreads the starts of workers that die together.
        """
        self._settings = settings
        self._main = main
        self._rng = rng
        self._running: dict[int, _Worker] = {}
        self._deaths = 0
        self._stopping = asyncio.Event()

    async def run(self, stop: asyncio.Event) -> None:
        """Keeps all workers running until `stop`, then lets them drain.

        Raises:
            StartError: The port cannot be had, or a worker says that it never will serve.
        """
        with ExitStack() as held:
            settings = self._of_workers(held)
            held.enter_context(self._metrics_server())
            # Of two pools of threads that each take every core, both are slower.
            threads = max(1, (os.cpu_count() or 1) // settings.workers)
            os.environ.setdefault("OMP_NUM_THREADS", str(threads))
            keeping = [asyncio.create_task(self._keep(place, settings)) for place in range(settings.workers)]
            stopping = asyncio.create_task(stop.wait())
            try:
                await asyncio.wait({*keeping, stopping}, return_when=asyncio.FIRST_COMPLETED)
                self._stopping.set()
                for worker in self._running.values():
                    _close(worker.pipe)
                done, _ = await asyncio.wait(keeping, timeout=settings.drain_timeout_s + _BEYOND_THE_DRAIN_S)
                for task in done:
                    task.result()
            finally:
                for each in (*keeping, stopping):
                    each.cancel()
                for worker in self._running.values():
                    worker.process.kill()
                    worker.process.join()

    async def _keep(self, place: int, settings: ModelSettings) -> None:
        """Runs one worker after another in a place, until all are to stop."""
        pause_s = _FIRST_PAUSE_S
        while not self._stopping.is_set():
            began = time.monotonic()
            status = await self._run_one(place, settings)
            if self._stopping.is_set():
                return
            if status == _CANNOT_START:
                raise StartError(f"worker {place} cannot start; its own line says why")
            self._deaths += 1
            lived_s = time.monotonic() - began
            if lived_s > _WELL_AFTER_S:
                pause_s = _FIRST_PAUSE_S
            _log.error("worker_died", worker=place, status=status, lived_s=round(lived_s, 1), again_in_s=pause_s)
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), pause_s * self._rng.uniform(0.5, 1.0))
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)

    async def _run_one(self, place: int, settings: ModelSettings) -> int | None:
        loop = asyncio.get_running_loop()
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(target=_begin, args=(self._main, settings, theirs), name=f"worker {place}")
        process.start()
        theirs.close()
        worker = self._running[place] = _Worker(process, ours)
        ended = asyncio.Event()
        loop.add_reader(process.sentinel, ended.set)
        loop.add_reader(ours.fileno(), self._hear, worker)
        _log.info("worker_started", worker=place, pid=process.pid)
        try:
            await ended.wait()
        finally:
            loop.remove_reader(process.sentinel)
            _close(ours)
        process.join()
        del self._running[place]
        return process.exitcode

    def _hear(self, worker: _Worker) -> None:
        try:
            worker.metrics_address = worker.pipe.recv()
        except (EOFError, OSError):
            _close(worker.pipe)

    def _addresses(self) -> dict[int, str]:
        return {place: each.metrics_address for place, each in list(self._running.items()) if each.metrics_address}

    def _metrics_server(self) -> MetricsServer:
        pages = WorkerMetrics(self._addresses)
        registry = CollectorRegistry()
        registry.register(pages)
        process = Metrics("process", registry)
        process.gauge_of("workers", "Worker processes that run.", lambda: {(): len(self._running)})
        process.counter_of("worker_deaths", "Workers that died and were started anew.", lambda: {(): self._deaths})
        return MetricsServer(process, self._settings.metrics_listen, {"/slow": pages.slow})

    def _of_workers(self, held: ExitStack) -> ModelSettings:
        """Returns the settings of each worker; the ports in them are held until `held` is left."""
        settings = self._settings
        changed = {"listen": held.enter_context(_held(settings.listen))}
        if settings.health_listen != OFF:
            changed["health_listen"] = held.enter_context(_held(settings.health_listen))
        if settings.metrics_listen != OFF:
            changed["metrics_listen"] = _ANY_PORT_HERE
        return settings.model_copy(update=changed)


def _begin(main: str, settings: ModelSettings, pipe: Connection) -> None:
    module, _, function = main.partition(":")
    work: WorkerMain = getattr(importlib.import_module(module), function)
    work(settings, pipe)


def _close(pipe: Connection) -> None:
    if not pipe.closed:
        asyncio.get_running_loop().remove_reader(pipe.fileno())
        pipe.close()


@contextmanager
def _held(address: str) -> Iterator[str]:
    """Keeps a port for sockets of ours that share it; yields host:port, of port 0 the one that was given.

    Raises:
        StartError: Somebody else has it.
    """
    host, _, port = address.rpartition(":")
    with ExitStack() as sockets:
        try:
            (family, *_, found), *_ = socket.getaddrinfo(
                host.strip("[]"), int(port), type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
            )
            with socket.socket(family) as alone:
                # Sharing is for our workers: who listens there already would be given every second connection of ours.
                alone.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                alone.bind(found)
                found = alone.getsockname()
            shared = sockets.enter_context(socket.socket(family))
            shared.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            shared.bind(found)
        except OSError as error:
            raise StartError(f"cannot listen on {address}: {error.strerror or error}") from error
        yield f"{host}:{found[1]}"
