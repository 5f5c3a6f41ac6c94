"""Learns from Redis what changes, whoever changes it. Knows the tracking of keys; knows no subscriber.

Redis tells every key with given prefixes that is written, deleted or expires (CLIENT TRACKING in its broadcasting mode;
https://redis.io/docs/latest/develop/reference/client-side-caching/). The tracking connection redirects to itself, which
RESP2 allows, so that it ends when the connection ends: what is not told is never mistaken for what did not happen.
"""

import asyncio
import random
from collections.abc import Callable

import structlog
from redis import exceptions
from redis.asyncio.connection import AbstractConnection

from feature_service import keys
from feature_service.change_ring import ChangeRing
from feature_service.redis_failures import describe
from feature_service.redis_link import RedisLink
from service_runtime.background import require_going_on
from service_runtime.errors import Unavailable

_log = structlog.get_logger(__name__)
_PING_EVERY_S = 1.0
_SILENT_FOR_S = 3.0
_RETRY_AFTER_S = 0.5
_CHANNEL = "__redis__:invalidate"


class ChangeWatch:
    """Follows all masters of a Redis and tells a ring."""

    def __init__(self, link: RedisLink, ring: ChangeRing, rng: random.Random, clock: Callable[[], float]) -> None:
        """Stores whom to follow and whom to tell; `clock` gives monotonic seconds."""
        self._link = link
        self._ring = ring
        self._rng = rng
        self._clock = clock

    async def keep(self) -> None:
        """Follows until it is cancelled, again and again if Redis goes away."""
        while True:
            try:
                await self._follow()
            except* (exceptions.RedisError, OSError, TimeoutError) as errors:
                _log.warning("change_feed_lost", reason=describe(errors.exceptions[0]))
            except* Unavailable as errors:
                _log.warning("change_feed_lost", reason=str(errors.exceptions[0]))
            except* Exception as errors:  # noqa: BLE001  nobody else would notice that nothing is followed any more
                _log.error("change_feed_failed", exc_info=errors)
            self._ring.reset(live=False)
            await asyncio.sleep(_RETRY_AFTER_S * self._rng.uniform(0.5, 1.5))

    async def _follow(self) -> None:
        connections = await self._link.new_connections()
        layout = self._link.layout()
        try:
            for connection in connections:
                await connection.connect()  # type: ignore[no-untyped-call]
                await _subscribe(connection)
            self._ring.reset(live=True)
            _log.info("change_feed_live", num_servers=len(connections))
            async with asyncio.TaskGroup() as group:
                for place, connection in enumerate(connections):
                    group.create_task(self._listen(connection, layout, tells_silence=place == 0))
        finally:
            for connection in connections:
                await connection.disconnect(nowait=True)

    async def _listen(self, connection: AbstractConnection, layout: object, *, tells_silence: bool) -> None:
        heard = asked = self._clock()
        while True:
            message = await connection.read_response(timeout=_PING_EVERY_S / 2)
            now = self._clock()
            if message is not None:
                heard = now
                self._tell(message, tells_silence=tells_silence)
            elif now - heard > _SILENT_FOR_S:
                raise TimeoutError("Redis does not answer in time")
            if now - asked >= _PING_EVERY_S:
                asked = now
                if self._link.layout() != layout:
                    raise ConnectionError("keys moved to other servers")
                await connection.send_command("PING")
                # Siblings are ended by their group, which cancels them once.
                require_going_on()

    def _tell(self, message: list[bytes | list[bytes] | None], *, tells_silence: bool) -> None:
        if message[0] == b"pong":
            if tells_silence:
                self._ring.add([])
            return
        changed = message[2]
        if not isinstance(changed, list):
            self._ring.reset(live=True)  # the whole data set was dropped
            return
        if keys.EPOCH in changed:
            self._ring.reset(live=True)  # the data set was replaced by an older one
        users = [user_id for key in changed if (user_id := keys.user_of(key)) is not None]
        self._ring.add(users, catalogue=keys.CATALOGUE in changed)


async def _subscribe(connection: AbstractConnection) -> None:
    await connection.send_command("CLIENT", "ID")
    client_id = await connection.read_response()
    prefixes = [part for prefix in keys.followed_prefixes() for part in (b"PREFIX", prefix)]
    await connection.send_command("CLIENT", "TRACKING", "ON", "REDIRECT", client_id, "BCAST", *prefixes)
    await connection.read_response()
    await connection.send_command("SUBSCRIBE", _CHANNEL)
    await connection.read_response()
