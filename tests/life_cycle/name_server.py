"""Answers which addresses a name has, as the DNS of a cluster does. Knows A records of one name; knows no service."""

import asyncio
import socket
import struct
from types import TracebackType

# RFC 1035, section 4.1: an answer that is authoritative, of type A, class IN; its name points to the question's.
_ANSWER_FLAGS, _TYPE_A, _CLASS_IN, _NAME_OF_QUESTION = 0x8400, 1, 1, 0xC00C
_HEADER = struct.Struct("!6H")
_RECORD = struct.Struct("!HHHIH4s")


class NameServer(asyncio.DatagramProtocol):
    """A name server on loopback; `async with`.

    Attributes:
        addresses: What every name has.
        authority: host:port on which it listens.
    """

    def __init__(self, *addresses: str) -> None:
        """Stores the addresses."""
        self.addresses = list(addresses)
        self.authority = ""

    async def __aenter__(self) -> "NameServer":
        """Listens."""
        loop = asyncio.get_running_loop()
        self._transport, _ = await loop.create_datagram_endpoint(lambda: self, ("127.0.0.1", 0))
        host, port = self._transport.get_extra_info("sockname")
        self.authority = f"{host}:{port}"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Ends."""
        self._transport.close()

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        """Answers one question; of other types than A with nothing."""
        number, *_ = _HEADER.unpack_from(data)
        end = data.index(0, _HEADER.size) + 5
        kind = int.from_bytes(data[end - 4 : end - 2], "big")
        addresses = self.addresses if kind == _TYPE_A else []
        records = [
            _RECORD.pack(_NAME_OF_QUESTION, _TYPE_A, _CLASS_IN, 0, 4, socket.inet_aton(address))
            for address in addresses
        ]
        head = _HEADER.pack(number, _ANSWER_FLAGS, 1, len(records), 0, 0)
        self._transport.sendto(head + data[_HEADER.size : end] + b"".join(records), addr)
