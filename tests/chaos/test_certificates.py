"""A drill on certificates: that of a port expires while it is called."""

import asyncio
import time
from pathlib import Path

import grpc
import pytest
from marquee.client.channel import open_channel
from marquee.client.credentials import Credentials
from marquee.v1 import feature_service_pb2_grpc

from tests.chaos.conftest import Drill
from tests.chaos.load import DEADLINE_S, Load
from tests.chaos.stack import ChaosStack, Process
from tests.feature_service import messages as make
from tests.service_runtime.secured import Authority

pytestmark = [pytest.mark.timeout(300), pytest.mark.chaos]
LASTS_S = 15.0
DAY_S = 86_400.0


class SecuredCallers:
    """Callers of a port with TLS, whose questions are counted with the others.

    Attributes:
        standing: A connection that is kept.
    """

    def __init__(self, load: Load, address: str, credentials: Credentials) -> None:
        """Stores whom to ask."""
        self._load = load
        self._address = address
        self._credentials = credentials
        self.standing = self._open()

    async def ask(self) -> bool:
        """Asks on the connection that stands; returns whether it was answered."""
        return await self._ask(self.standing)

    async def ask_anew(self) -> bool:
        """Asks on a connection of its own."""
        async with self._open() as channel:
            return await self._ask(channel)

    def _open(self) -> grpc.aio.Channel:
        options = [("grpc.use_local_subchannel_pool", 1)]
        return open_channel(self._address, credentials=self._credentials, options=options)

    async def _ask(self, channel: grpc.aio.Channel) -> bool:
        stub = feature_service_pb2_grpc.FeatureServiceStub(channel)

        async def read() -> None:
            await stub.BatchGetUsers(make.users("ann"), timeout=DEADLINE_S)

        return await self._load.judge("secured read", read)


async def test_certificate_expired(stack: ChaosStack, drill: Drill, tmp_path: Path):
    """New connections fail, those that stand go on; a renewed file is taken up without a restart."""
    authority = Authority(tmp_path)
    certificate, key = authority.issue("features")
    settings = {
        "FEATURE_REDIS_URL": f"redis://{stack.to_redis.address}",
        "FEATURE_TLS_CERT_FILE": str(certificate),
        "FEATURE_TLS_KEY_FILE": str(key),
    }
    secured = Process("feature_service", tmp_path, settings)
    secured.start()
    try:
        await secured.log.has_said("dependency_found", dependency="redis")
        async with drill("certificate expired") as load:
            authority.issue("features", days=LASTS_S / DAY_S)
            expires_at = time.time() + LASTS_S
            callers = SecuredCallers(load, secured.address, Credentials(tls=True, ca_file=authority.file))
            async with callers.standing:
                assert await callers.ask()
                assert await callers.ask_anew()
                await asyncio.sleep(expires_at + 1.0 - time.time())
                assert [await callers.ask_anew(), await callers.ask()] == [False, True]

                authority.issue("features")

                assert [await callers.ask_anew(), await callers.ask()] == [True, True]
        assert load.noticed() == {"UNAVAILABLE": 1}
        secured.stop()
    finally:
        secured.end()
