"""Stands between a caller and a server, and makes the way between them bad. Knows bytes and sockets only.

It runs in a thread of its own, so that it goes on while the loop of a test is busy and outlives the loop of one test.
"""

import asyncio
import threading
import time
from collections.abc import Callable, Coroutine
from contextlib import suppress
from types import TracebackType
from typing import Any

_PIECE_BYTES = 65_536
Connect = Callable[[], Coroutine[Any, Any, tuple[asyncio.StreamReader, asyncio.StreamWriter]]]


def to_unix(path: str) -> Connect:
    """Returns how to connect to a socket of this machine."""
    return lambda: asyncio.open_unix_connection(path)


def to_tcp(address: str) -> Connect:
    """Returns how to connect to host:port."""
    host, _, port = address.rpartition(":")
    return lambda: asyncio.open_connection(host, int(port))


class FaultyProxy:
    """Forwards connections; `with FaultyProxy(to_tcp(address)) as proxy`.

    Attributes:
        address: host:port on which it listens.
        connect: Whom new connections are forwarded to.
        delay_s: How much later than it came each answer is passed on.
        num_connections: Connections that it ever took.
    """

    def __init__(self, connect: Connect) -> None:
        """Stores whom to forward to."""
        self.address = ""
        self.connect = connect
        self.delay_s = 0.0
        self.num_connections = 0
        self._open: dict[asyncio.StreamWriter, bool] = {}
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)

    def __enter__(self) -> "FaultyProxy":
        """Listens."""
        self._thread.start()
        self._server: asyncio.Server = self._do(asyncio.start_server(self._forward, "127.0.0.1", 0, backlog=1024))
        host, port = self._server.sockets[0].getsockname()
        self.address = f"{host}:{port}"
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Closes everything."""
        self._server.close()
        self._do(self._close_all())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def hang_up(self) -> None:
        """Closes all connections; new ones are taken."""
        self._do(self._hang_up())

    def swallow(self) -> None:
        """Leaves the connections that stand open for ever, and passes nothing on: the other side has vanished."""
        self._do(self._swallow())

    def _do(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(30)

    async def _hang_up(self) -> None:
        for writer in list(self._open):
            writer.transport.abort()

    async def _swallow(self) -> None:
        for writer in self._open:
            self._open[writer] = True

    async def _close_all(self) -> None:
        await self._hang_up()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.num_connections += 1
        try:
            from_server, to_server = await self.connect()
        except OSError:
            # Whoever connects sees what he would see of a server that is away.
            writer.transport.abort()
            return
        self._open[writer] = self._open[to_server] = False
        ways = {
            asyncio.create_task(self._pass_on(reader, to_server, is_answer=False)),
            asyncio.create_task(self._pass_on(from_server, writer, is_answer=True)),
        }
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            for end in (writer, to_server):
                del self._open[end]
                end.close()

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, is_answer: bool) -> None:
        """Passes on what comes, each piece at its time, so that a delay costs no throughput."""
        coming: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()
        sending = asyncio.create_task(self._send(coming, writer))
        try:
            with suppress(ConnectionError):  # one side has gone, and so does the other
                while data := await reader.read(_PIECE_BYTES):
                    coming.put_nowait((time.monotonic() + (self.delay_s if is_answer else 0.0), data))
            coming.put_nowait((0.0, b""))
            await sending
        finally:
            sending.cancel()

    async def _send(self, coming: "asyncio.Queue[tuple[float, bytes]]", writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            while True:
                due, data = await coming.get()
                await asyncio.sleep(max(0.0, due - time.monotonic()))
                if self._open.get(writer, True):
                    continue
                if not data:
                    return
                writer.write(data)
                await writer.drain()
