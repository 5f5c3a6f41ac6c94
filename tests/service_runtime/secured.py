"""Secured servers of echo.Echo, who calls them, and who signs their certificates."""

import datetime
import hashlib
import os
from pathlib import Path
from typing import Any

import trustme
from marquee.client.channel import open_channel
from marquee.client.credentials import Credentials

from service_runtime.health import Health
from service_runtime.server import Security, Server, Service
from tests.service_runtime.echo import ECHO, EchoHandlers

SAY_BACK = "/echo.Echo/SayBack"
SAY_ON = "/echo.Echo/SayOn"


def line(name: str, token: str, rights: str = "") -> str:
    """Returns the line of a file of tokens."""
    return f"{name} sha256:{hashlib.sha256(token.encode()).hexdigest()} {rights}\n"


def server_of(handlers: EchoHandlers, security: Security) -> Server:
    """Returns a server of echo.Echo on a free port."""
    return Server(
        [Service(ECHO, handlers)],
        Health(["echo.Echo"], []),
        listen="127.0.0.1:0",
        drain_timeout_s=2.0,
        security=security,
    )


async def say(address: str, token: str = "", payload: bytes = b"", credentials: Credentials | None = None) -> bytes:
    """Calls SayBack on a connection of its own."""
    given = credentials or Credentials(token=token)
    async with open_channel(address, credentials=given, options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
        call: Any = channel.unary_unary(SAY_BACK)
        reply: bytes = await call(payload, timeout=20)
        return reply


class Authority:
    """Signs certificates into a folder."""

    def __init__(self, folder: Path, name: str = "ca") -> None:
        self._folder = folder
        self._authority = trustme.CA()
        self.file = folder / f"{name}.pem"
        self._authority.cert_pem.write_to_path(self.file)

    def issue(self, name: str, days: float = 1) -> tuple[Path, Path]:
        """Writes a certificate and its key, each in one step, over older ones."""
        until = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=days)
        issued = self._authority.issue_cert("127.0.0.1", "localhost", not_after=until)
        certificate, key = self._folder / f"{name}.pem", self._folder / f"{name}.key"
        for file, text in (
            (certificate, b"".join(each.bytes() for each in issued.cert_chain_pems)),
            (key, issued.private_key_pem.bytes()),
        ):
            aside = file.with_suffix(".new")
            aside.write_bytes(text)
            os.replace(aside, file)
        return certificate, key
