"""Makes the bytes of HTTP/2, right ones and wrong ones. Knows RFC 9113 and 7541; knows no message of ours."""

import asyncio
import random
import struct
from collections.abc import Callable
from contextlib import suppress

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
# RFC 9113, section 6: types of frames and flags.
DATA, HEADERS, RST_STREAM, SETTINGS, PUSH_PROMISE, PING = 0, 1, 3, 4, 5, 6
WINDOW_UPDATE, CONTINUATION = 8, 9
END_STREAM, END_HEADERS = 0x1, 0x4
_INITIAL_WINDOW_SIZE = 4
_LISTENS_FOR_S = 0.2


def frame(kind: int, flags: int, stream: int, payload: bytes = b"", *, claims: int | None = None) -> bytes:
    """Returns a frame, whose length is a lie if it `claims` one."""
    size = len(payload) if claims is None else claims
    return size.to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


def settings(window: int | None = None) -> bytes:
    """Returns the first frame of a client, who takes so many bytes of each answer."""
    told = b"" if window is None else struct.pack("!HI", _INITIAL_WINDOW_SIZE, window)
    return frame(SETTINGS, 0, 0, told)


def header_block(path: str, **more: str) -> bytes:
    """Returns the headers of a gRPC call, none of them indexed or compressed (RFC 7541, section 6.2.2)."""
    headers = {
        ":method": "POST",
        ":scheme": "http",
        ":path": path,
        ":authority": "localhost",
        "content-type": "application/grpc",
        "te": "trailers",
        **more,
    }
    return b"".join(b"\0" + _text(name) + _text(value) for name, value in headers.items())


def _text(text: str) -> bytes:
    """Returns a text of less than 127 bytes (RFC 7541, section 5.2)."""
    return bytes([len(text)]) + text.encode()


def message(payload: bytes, *, compressed: bool = False, claims: int | None = None) -> bytes:
    """Returns a message as gRPC frames it."""
    return bytes([compressed]) + struct.pack("!I", len(payload) if claims is None else claims) + payload


def call(stream: int, path: str, body: bytes) -> bytes:
    """Returns a whole call."""
    return frame(HEADERS, END_HEADERS, stream, header_block(path)) + frame(DATA, END_STREAM, stream, body)


def garbage(path: str, request: bytes) -> dict[str, Callable[[random.Random], bytes]]:
    """Returns what no sound client sends, by what it is; `path` and `request` are of an RPC."""
    begin = PREFACE + settings()
    block = header_block(path)
    return {
        "noise": lambda rng: rng.randbytes(4096),
        "HTTP/1.1": lambda rng: b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n",
        "a TLS hello": lambda rng: b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + rng.randbytes(512),
        "noise after the preface": lambda rng: begin + rng.randbytes(4096),
        "half a preface": lambda rng: PREFACE[: rng.randrange(1, len(PREFACE))],
        "frames of no type": lambda rng: begin + b"".join(frame(200, 255, 7, rng.randbytes(99)) for _ in range(50)),
        "a frame of 16 MB": lambda rng: begin + frame(DATA, 0, 1, rng.randbytes(999), claims=(1 << 24) - 1),
        "headers that are none": lambda rng: begin + frame(HEADERS, END_HEADERS, 1, rng.randbytes(200)),
        "headers without end": lambda rng: (
            begin + frame(HEADERS, 0, 1, block) + b"".join(frame(CONTINUATION, 0, 1, block) for _ in range(300))
        ),
        "data of no stream": lambda rng: begin + frame(DATA, 0, 0, b"x") + frame(DATA, 0, 99, b"x"),
        "an even stream": lambda rng: begin + call(2, path, message(request)),
        "a push": lambda rng: begin + frame(PUSH_PROMISE, END_HEADERS, 1, struct.pack("!I", 2) + block),
        "a window that overflows": lambda rng: begin + 2 * frame(WINDOW_UPDATE, 0, 0, struct.pack("!I", (1 << 31) - 1)),
        "no such RPC": lambda rng: begin + call(1, "/marquee.v1.Nothing/Nowhere", message(request)),
        "a message that is none": lambda rng: begin + call(1, path, message(rng.randbytes(64))),
        "a message cut short": lambda rng: begin + call(1, path, message(request, claims=len(request) + 100)),
        "a message of 4 GB": lambda rng: begin + call(1, path, message(request, claims=(1 << 32) - 1)),
        "compressed by nothing": lambda rng: begin + call(1, path, message(request, compressed=True)),
        "a flood of resets": lambda rng: (
            begin
            + b"".join(
                call(stream, path, message(request)) + frame(RST_STREAM, 0, stream, struct.pack("!I", 8))
                for stream in range(1, 400, 2)
            )
        ),
        "a flood of pings": lambda rng: begin + frame(PING, 0, 0, bytes(8)) * 2000,
        "a flood of settings": lambda rng: begin + settings(1) * 2000,
        "empty frames": lambda rng: begin + frame(HEADERS, END_HEADERS, 1, block) + frame(DATA, 0, 1) * 5000,
    }


async def send(address: str, content: bytes) -> bytes:
    """Sends bytes on a connection of its own, hangs up a little later, and returns what was answered until then."""
    host, _, port = address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    heard = b""
    # A server that hangs up on garbage does right.
    with suppress(ConnectionError, TimeoutError):
        writer.write(content)
        async with asyncio.timeout(_LISTENS_FOR_S):
            await writer.drain()
            while piece := await reader.read(65_536):
                heard += piece
    writer.transport.abort()
    return heard
