"""Asks more than a server can answer, from processes of their own, with little processor time. Knows HTTP/2 frames.

A gRPC client costs as much processor time a call as our server, so on a machine of few cores no gRPC client can ask
three times as much as is answered; h2load can, but takes refusals for answers and gives no call a deadline. So frames
are written here: the header block of a call is the same every time (RFC 7541 section 6.2.2, nothing indexed), and the
server is told to keep no table of headers, by which a status is readable in its trailers without a decoder.

An open loop (`per_s`) asks when a question is due, answered or not, and latencies count from then; a closed loop
(`in_flight`) asks again when it was answered. Each call tells its deadline, and is cancelled when that has passed, as
gRPC clients do. Answers are not parsed while the clock runs: all that differ are handed back, to be checked.
"""

import asyncio
import multiprocessing
import re
import struct
import time
from collections import Counter, deque
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import cast

import numpy as np
import uvloop
from numpy.typing import NDArray

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _RST_STREAM, _SETTINGS, _PING, _GOAWAY, _WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
_END_STREAM, _ACK, _END_HEADERS = 1, 1, 4
_CANCEL = 8
_HEADER_TABLE_SIZE, _INITIAL_WINDOW_SIZE = 1, 4
_WINDOW = 1 << 30
_FIRST_WINDOW = 65_535
_STATUS = re.compile(rb"grpc-status.([0-9]{1,2})", re.DOTALL)
_TICK_S = 0.001
ANSWERED, EXPIRED = "answered", "expired"


@dataclass(frozen=True, slots=True)
class Flood:
    """What is asked.

    Attributes:
        address: host:port.
        method: Full name of the RPC, for example "/marquee.v1.ModelService/TopK".
        requests: Serialised; asked in turn.
        seconds: How long.
        per_s: Questions a second, whatever comes back; 0 for a closed loop.
        in_flight: Of a closed loop, how many wait at a time.
        connections: They are spread over.
        timeout_ms: How long a caller waits.
    """

    address: str
    method: str
    requests: Sequence[bytes]
    seconds: float
    per_s: float = 0.0
    in_flight: int = 64
    connections: int = 16
    timeout_ms: int = 250


@dataclass(slots=True)
class Outcome:
    """What came of it.

    Attributes:
        elapsed_s: How long was asked.
        counts: "answered", "expired", or the number of a gRPC status; "reset" where a stream ended without any.
        latencies_ms: Of answers that came in time. float64 [count]
        refused_ms: How long callers waited for another status than an answer. float64 [count]
        answers: The different answers to each request, by its place.
        used_s: Processor time of the processes that asked.
    """

    elapsed_s: float
    counts: Counter[str]
    latencies_ms: NDArray[np.float64]
    refused_ms: NDArray[np.float64]
    answers: dict[int, set[bytes]] = field(default_factory=dict)
    used_s: float = 0.0

    @property
    def per_s(self) -> float:
        """Answers in time, a second."""
        return self.counts[ANSWERED] / self.elapsed_s

    @property
    def refused(self) -> int:
        """Questions that somebody said no to."""
        return self.counts.total() - self.counts[ANSWERED] - self.counts[EXPIRED]

    def percentile(self, percent: float) -> float:
        """Returns a latency of the answers, in milliseconds; NaN if there are none."""
        return float(np.percentile(self.latencies_ms, percent)) if len(self.latencies_ms) else float("nan")


class Flooders:
    """Processes that ask when they are told to; a context manager."""

    def __init__(self, processes: int = 1) -> None:
        self._pipes = []
        self._processes = []
        for _ in range(processes):
            ours, theirs = multiprocessing.Pipe()
            self._pipes.append(ours)
            context = multiprocessing.get_context("spawn")
            self._processes.append(context.Process(target=_serve, args=(theirs,), daemon=True))

    def __enter__(self) -> "Flooders":
        for process in self._processes:
            process.start()
        return self

    def __exit__(self, *_: object) -> None:
        for pipe, process in zip(self._pipes, self._processes, strict=True):
            pipe.send([])
            process.join(10)

    def ask(self, *floods: Flood) -> list[Outcome]:
        """Asks several things at once, each from a process of its own, and returns what came of each.

        Raises:
            RuntimeError: A connection broke; says how.
        """
        if len(floods) > len(self._pipes):
            raise ValueError(f"{len(floods)} floods from {len(self._pipes)} processes")
        for pipe, flood in zip(self._pipes, floods, strict=False):
            pipe.send([flood])
        outcomes = [pipe.recv() for pipe, _ in zip(self._pipes, floods, strict=False)]
        for outcome in outcomes:
            if isinstance(outcome, str):
                raise RuntimeError(outcome)
        return outcomes


def _serve(pipe: Connection) -> None:
    while floods := pipe.recv():
        try:
            pipe.send(uvloop.run(_Asking(floods[0]).ask()))
        except (OSError, ConnectionError) as error:
            pipe.send(f"{type(error).__name__}: {error}")


@dataclass(slots=True)
class _Call:
    """A stream that is open."""

    place: int
    due: float
    body: bytes = b""
    status: str = ""


class _Asking:
    """One flood."""

    def __init__(self, flood: Flood) -> None:
        self.flood = flood
        self.counts: Counter[str] = Counter()
        self.latencies: list[float] = []
        self.refusals: list[float] = []
        self.answers: dict[int, set[bytes]] = {}
        self._connections: list[_Connection] = []
        self._asked = 0

    async def ask(self) -> Outcome:
        host, _, port = self.flood.address.rpartition(":")
        loop = asyncio.get_running_loop()
        with ExitStack() as closing:
            for _ in range(self.flood.connections):
                _, connection = await loop.create_connection(lambda: _Connection(self), host, int(port))
                closing.callback(connection.close)
                self._connections.append(connection)
                await connection.ready.wait()
            used_s, began = time.process_time(), time.perf_counter()
            self._until = began + self.flood.seconds
            if self.flood.per_s:
                await self._open_loop(began)
            else:
                await self._closed_loop(began)
            elapsed_s = time.perf_counter() - began
            used_s = time.process_time() - used_s
            # The last callers wait until they are answered or their time is up.
            while any(connection.calls for connection in self._connections):
                await asyncio.sleep(_TICK_S)
                self._expire(time.perf_counter())
        latencies, refusals = np.array(self.latencies) * 1000, np.array(self.refusals) * 1000
        return Outcome(elapsed_s, self.counts, latencies, refusals, self.answers, used_s)

    async def _open_loop(self, began: float) -> None:
        period_s = 1 / self.flood.per_s
        while (now := time.perf_counter()) < self._until:
            while (due := began + self._asked * period_s) <= now:
                self._begin(self._connections[self._asked % len(self._connections)], due)
            self._flush(now)
            await asyncio.sleep(_TICK_S)

    async def _closed_loop(self, began: float) -> None:
        for number in range(self.flood.in_flight):
            self._begin(self._connections[number % len(self._connections)], began)
        while (now := time.perf_counter()) < self._until:
            self._flush(now)
            await asyncio.sleep(_TICK_S)

    def _begin(self, connection: "_Connection", due: float) -> None:
        place = self._asked % len(self.flood.requests)
        self._asked += 1
        connection.begin(_Call(place, due), self.flood.requests[place])

    def _flush(self, now: float) -> None:
        self._expire(now)
        for connection in self._connections:
            connection.flush()

    def _expire(self, now: float) -> None:
        # Streams of a connection are in the order in which they began, and all callers wait equally long.
        oldest = now - self.flood.timeout_ms / 1000
        for connection in self._connections:
            for stream, call in list(connection.calls.items()):
                if call.due > oldest:
                    break
                connection.cancel(stream)
                self.ended(connection, call, EXPIRED, now)

    def ended(self, connection: "_Connection", call: _Call, how: str, now: float) -> None:
        """Counts the end of a call; in a closed loop the next begins."""
        if how == ANSWERED and now - call.due > self.flood.timeout_ms / 1000:
            how = EXPIRED
        self.counts[how] += 1
        if how == ANSWERED:
            self.latencies.append(now - call.due)
            self.answers.setdefault(call.place, set()).add(call.body)
        elif how != EXPIRED:
            self.refusals.append(now - call.due)
        if not self.flood.per_s and now < self._until:
            self._begin(connection, now)


class _Connection(asyncio.Protocol):
    """One connection and its streams."""

    def __init__(self, asking: _Asking) -> None:
        self.calls: dict[int, _Call] = {}
        self.ready = asyncio.Event()
        self._asking = asking
        self._next = 1
        self._window = _FIRST_WINDOW
        self._out = bytearray()
        self._blocked: deque[tuple[int, bytes]] = deque()
        self._in = bytearray()
        self._transport: asyncio.WriteTransport | None = None
        self._closing = False
        flood = asking.flood
        self._header_block = bytes([0x83, 0x86]) + b"".join(
            (
                _literal(b"\x04", flood.method),
                _literal(b"\x01", flood.address),
                _literal(b"\x00" + _text("content-type"), "application/grpc"),
                _literal(b"\x00" + _text("te"), "trailers"),
                _literal(b"\x00" + _text("grpc-timeout"), f"{flood.timeout_ms}m"),
            )
        )

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Says what this client is."""
        # Those of uvloop are writable and do not say so by their class.
        self._transport = transport = cast(asyncio.WriteTransport, transport)
        settings = struct.pack(">HIHI", _HEADER_TABLE_SIZE, 0, _INITIAL_WINDOW_SIZE, _WINDOW)
        transport.write(_PREFACE + _frame(_SETTINGS, 0, 0, settings))
        transport.write(_frame(_WINDOW_UPDATE, 0, 0, struct.pack(">I", _WINDOW)))

    def connection_lost(self, exc: Exception | None) -> None:
        """Ends all calls."""
        calls, self.calls = self.calls, {}
        self._closing = True
        for call in calls.values():
            self._asking.ended(self, call, "connection lost", time.perf_counter())

    def close(self) -> None:
        """Closes the connection."""
        assert self._transport is not None
        self._transport.close()

    def begin(self, call: _Call, request: bytes) -> None:
        """Opens a stream; it leaves with the next `flush`."""
        if self._closing:
            raise ConnectionError("the server closed a connection")
        stream, self._next = self._next, self._next + 2
        self.calls[stream] = call
        self._out += _frame(_HEADERS, _END_HEADERS, stream, self._header_block)
        self._blocked.append(
            (stream, _frame(_DATA, _END_STREAM, stream, struct.pack(">BI", 0, len(request)) + request))
        )

    def cancel(self, stream: int) -> None:
        """Ends a stream as a caller who waits no longer does."""
        del self.calls[stream]
        self._out += _frame(_RST_STREAM, 0, stream, struct.pack(">I", _CANCEL))

    def flush(self) -> None:
        """Writes what may be written."""
        while self._blocked and len(self._blocked[0][1]) - 9 <= self._window:
            stream, frame = self._blocked.popleft()
            if stream in self.calls:
                self._window -= len(frame) - 9
                self._out += frame
        if self._out and self._transport is not None:
            self._transport.write(bytes(self._out))
            self._out.clear()

    def data_received(self, data: bytes) -> None:
        """Reads frames."""
        self._in += data
        buffer, at = self._in, 0
        while len(buffer) - at >= 9:
            length = int.from_bytes(buffer[at : at + 3], "big")
            if len(buffer) - at < 9 + length:
                break
            kind, flags = buffer[at + 3], buffer[at + 4]
            stream = int.from_bytes(buffer[at + 5 : at + 9], "big")
            self._frame(kind, flags, stream, bytes(buffer[at + 9 : at + 9 + length]))
            at += 9 + length
        del buffer[:at]
        self.flush()

    def _frame(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if kind in (_DATA, _HEADERS):
            call = self.calls.get(stream)
            if call is None:
                return
            if kind == _DATA:
                call.body += payload
            elif found := _STATUS.search(payload):
                call.status = found[1].decode()
            if flags & _END_STREAM:
                self._end(stream, call)
        elif kind == _RST_STREAM:
            if (call := self.calls.get(stream)) is not None:
                self._end(stream, call)
        elif kind == _WINDOW_UPDATE:
            if stream == 0:
                self._window += int.from_bytes(payload, "big")
        elif kind == _PING and not flags & _ACK:
            self._out += _frame(_PING, _ACK, 0, payload)
        elif kind == _SETTINGS and not flags & _ACK:
            self._out += _frame(_SETTINGS, _ACK, 0, b"")
            self.ready.set()
        elif kind == _GOAWAY:
            self._closing = True

    def _end(self, stream: int, call: _Call) -> None:
        del self.calls[stream]
        # A message begins with a byte that says whether it is compressed, and four of its length.
        whole, call.body = call.status == "0" and len(call.body) > 5, call.body[5:]
        self._asking.ended(self, call, ANSWERED if whole else call.status or "reset", time.perf_counter())


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return struct.pack(">IBI", len(payload) << 8 | kind, flags, stream) + payload


def _text(text: str) -> bytes:
    return bytes([len(text)]) + text.encode()


def _literal(name: bytes, value: str) -> bytes:
    if len(value) > 126:
        raise ValueError(f"{value!r} is longer than one byte of length can say")
    return name + _text(value)
