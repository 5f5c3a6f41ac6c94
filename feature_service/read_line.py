"""One connection that everybody who reads shares: commands leave as they come, answers arrive in the same order.

Knows the protocol of Redis, by hiredis, and no key. redis-py makes the connection, with all that belongs to it (login,
TLS); from then on it is ours, because a command through its asyncio client costs a task, a timer, a place in a pool and
some hundred µs. Nothing is tried again here: when the line fails, so does everything that waits on it, and who asked
asks in the way that tries again.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any

import hiredis
from redis.asyncio.connection import AbstractConnection

Tell = Callable[[Any], None]
"""Is told an answer, or the exception that came instead of it."""

_UNFINISHED = object()
# 100 users of 50 events are 140 kB; what is longer arrives in parts.
_BUFFER_BYTES = 1 << 18


class ReadLine(asyncio.BufferedProtocol):
    """A connection to one server of Redis. `open` makes it; it is closed for good by the first failure.

    What arrives lies in one buffer until hiredis has it: bytes that the loop makes are made anew for each arrival.

    Attributes:
        is_open: Whether it can be asked.
    """

    def __init__(self, connection: AbstractConnection, timeout_s: float) -> None:
        """Stores how to reach the server.

        Args:
            connection: Of redis-py, not connected, with RESP2.
            timeout_s: How long an answer may take.
        """
        self._connection = connection
        self._timeout_s = timeout_s
        self._reader = hiredis.Reader(notEnoughData=_UNFINISHED)
        # A view: asyncio's TLS takes slices of it, to write to.
        self._buffer = memoryview(bytearray(_BUFFER_BYTES))
        self._waiting: deque[tuple[float, Tell]] = deque()
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._is_gone = False
        self.is_open = False

    async def open(self) -> None:
        """Connects and logs in; raises what redis-py does."""
        self._loop = asyncio.get_running_loop()
        await self._connection.connect()  # type: ignore[no-untyped-call]
        writer = self._connection._writer
        assert writer is not None
        self._transport = writer.transport  # type: ignore[assignment]
        # What belongs to logging in has been asked and answered, and nothing else is sent without being asked for.
        writer.transport.set_protocol(self)
        self.is_open = not writer.transport.is_closing()

    def ask(self, packed: bytes, tell: Tell) -> None:
        """Sends one command, as hiredis packs it; `tell` is called once, later."""
        assert self._transport is not None
        now = self._loop.time()
        if not self._waiting:
            self._watch(now)
        self._waiting.append((now, tell))
        self._transport.write(packed)

    def close(self, reason: Exception | None = None) -> None:
        """Closes it; everybody who waits is told the reason."""
        self.is_open = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._transport is not None and not self._is_gone:
            self._is_gone = True
            # First, and once: TLS of Python 3.11.2 fails to abort a transport that was closed twice.
            self._transport.abort()
            # It forgets the transport; redis-py would warn of a connection that was left open.
            self._connection._close()  # type: ignore[no-untyped-call]
        waiting, self._waiting = self._waiting, deque()
        for _, tell in waiting:
            tell(reason or ConnectionError("the connection to Redis was closed"))

    def get_buffer(self, sizehint: int) -> memoryview:
        """Returns where the loop puts what arrives."""
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Takes answers apart."""
        try:
            self._reader.feed(self._buffer, 0, nbytes)  # type: ignore[arg-type]  # any buffer, its stub says less
            while (answer := self._reader.gets()) is not _UNFINISHED:
                if not self._waiting:
                    raise hiredis.ProtocolError("an answer that nobody asked for")
                self._waiting.popleft()[1](answer)
        except hiredis.ProtocolError as error:
            self.close(ConnectionError(str(error)))

    def connection_lost(self, error: Exception | None) -> None:
        """Tells those who wait."""
        self.close(error)

    def _watch(self, since: float) -> None:
        if self._timer is None:
            self._timer = self._loop.call_at(since + self._timeout_s, self._look)

    def _look(self) -> None:
        """Closes the line if the first who waits has waited for too long; one timer a line, not one a command."""
        self._timer = None
        if not self._waiting:
            return
        since = self._waiting[0][0]
        if self._loop.time() - since >= self._timeout_s:
            self.close(TimeoutError("Redis does not answer"))
        else:
            self._watch(since)
