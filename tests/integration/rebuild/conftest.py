"""A feature_service on a real Redis, in a thread: callers of these tests are not asynchronous."""

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from marquee.client.channel import open_channel, open_sync_channel

from feature_service.__main__ import serving
from feature_service.settings import FeatureSettings
from tests.feature_server import until_ready
from tests.integration.rebuild.looped import Looped
from two_tower.registry import Registry


@pytest.fixture
def store_address(redis_settings: dict[str, Any]) -> Iterator[str]:
    """host:port of a feature_service whose store is empty."""
    settings = FeatureSettings(**redis_settings, listen="127.0.0.1:0", metrics_listen="off", drain_timeout_s=1.0)
    loop, stop = asyncio.new_event_loop(), asyncio.Event()
    address: list[str] = []
    ready = threading.Event()

    async def serve() -> None:
        async with serving(settings) as server:
            async with open_channel(server.address) as channel:
                await until_ready(channel)
            address.append(server.address)
            ready.set()
            await stop.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    try:
        assert ready.wait(60)
        yield address[0]
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(60)
        loop.close()


@pytest.fixture
def looped(store_address: str, tmp_path: Path) -> Iterator[Looped]:
    """A registry and the store; nothing has happened yet."""
    registry = Registry(tmp_path / "registry")
    registry.require_writable()
    with open_sync_channel(store_address) as channel:
        yield Looped(registry, channel)
