"""Stands between a service and its Redis, and makes it slow, or leads elsewhere. Knows bytes only."""

import asyncio
from contextlib import suppress
from pathlib import Path
from types import TracebackType


class SlowProxy:
    """Forwards connections to a socket; `async with SlowProxy(folder, server) as proxy`.

    Attributes:
        url: Where it listens.
        server: The socket of whom new connections are forwarded to.
        delay_s: How long each piece of an answer is held.
    """

    def __init__(self, folder: Path, server: Path) -> None:
        """Stores where to listen, in a folder, and whom to forward to."""
        self._socket = folder / "proxy.sock"
        self.url = f"unix://{self._socket}"
        self.server = server
        self.delay_s = 0.0
        self._listening: asyncio.Server | None = None
        self._open: set[asyncio.StreamWriter] = set()

    async def __aenter__(self) -> "SlowProxy":
        """Listens."""
        self._listening = await asyncio.start_unix_server(self._forward, self._socket)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Ends as `hang_up` does."""
        await self.hang_up()

    async def hang_up(self) -> None:
        """Closes all connections and takes none; enter again to go on."""
        if self._listening is not None:
            self._listening.close()
            self._listening = None
        for writer in set(self._open):
            writer.close()
        self._socket.unlink(missing_ok=True)

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        from_server, to_server = await asyncio.open_unix_connection(self.server)
        ends = {writer, to_server}
        self._open |= ends
        try:
            asking = asyncio.create_task(self._copy(reader, to_server, slowly=False))
            answering = asyncio.create_task(self._copy(from_server, writer, slowly=True))
            _, left = await asyncio.wait({asking, answering}, return_when=asyncio.FIRST_COMPLETED)
            for task in left:
                task.cancel()
        finally:
            self._open -= ends
            for end in ends:
                end.close()

    async def _copy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, slowly: bool) -> None:
        with suppress(ConnectionError):  # one side has gone, and so does the other
            while data := await reader.read(65_536):
                if slowly and self.delay_s:
                    await asyncio.sleep(self.delay_s)
                writer.write(data)
                await writer.drain()
