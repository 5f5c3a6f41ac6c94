"""Watches Redis and says whether requests can be answered. Knows when to look; knows no request."""

import asyncio
import random
import re
from contextlib import suppress

import structlog
from redis import exceptions

from feature_service import keys
from feature_service.catalogue import Catalogue
from feature_service.durability import describe_durability
from feature_service.embedded_redis import OLDEST_VERSION, EmbeddedRedis
from feature_service.redis_failures import FORBIDDEN
from feature_service.redis_link import RedisLink
from feature_service.store import StoreMarks
from feature_service.value_format import FormatError
from service_runtime.errors import ServiceError, Unavailable
from service_runtime.health import Health
from service_runtime.server import StartError

_log = structlog.get_logger(__name__)
REDIS = "redis"
_LOOK_EVERY_S = 2.0
_RETRY_AFTER_S = 0.5


class Readiness:
    """Keeps the health of the service: it is ready while Redis answers and the catalogue is in memory."""

    def __init__(
        self,
        link: RedisLink,
        marks: StoreMarks,
        catalogue: Catalogue,
        health: Health,
        rng: random.Random,
        embedded: EmbeddedRedis | None,
    ) -> None:
        self._link = link
        self._marks = marks
        self._catalogue = catalogue
        self._health = health
        self._rng = rng
        self._embedded = embedded
        self._told_durability = False

    async def keep(self) -> None:
        """Looks until it is cancelled: now and then, and at once after a failure."""
        while True:
            reason = await self._look()
            if reason is None:
                await self._health.found(REDIS)
                await self._wait_for_failure(_LOOK_EVERY_S * self._rng.uniform(0.5, 1.5))
            else:
                await self._health.lost(REDIS, reason)
                await asyncio.sleep(_RETRY_AFTER_S * self._rng.uniform(0.5, 1.5))

    async def _look(self) -> str | None:
        """Returns why requests cannot be answered, None if they can."""
        self._link.failed.clear()
        try:
            if self._embedded is not None:
                await self._embedded.revive()
            await self._link.probe()
            too_old = await self._too_old()
            if too_old is not None:
                return too_old
            await self._ask_for_rights()
            await self._marks.require_usable()
            await self._catalogue.newest()
            if not self._told_durability:
                _log.info("durability", promise=await describe_durability(self._link))
                self._told_durability = True
        except ServiceError as error:
            return error.message
        except (exceptions.RedisError, FormatError, StartError) as error:
            return str(error)
        except Exception as error:  # noqa: BLE001  nobody else would notice that nothing looks any more
            _log.error("readiness_failed", exc_info=error)
            return "the state of Redis cannot be told; see the log"
        return None

    async def _too_old(self) -> str | None:
        try:
            info = await self._link.command("INFO", "server")
        except Unavailable as error:
            if error.reason != FORBIDDEN:
                raise
            return None  # an ACL that hides the version leaves it to its owner to have a recent one
        version = str(info.get("redis_version", ""))
        match = re.match(r"(\d+)\.(\d+)", version)
        if match is not None and (int(match[1]), int(match[2])) < OLDEST_VERSION:
            return f"Redis {version} is too old; 6.2 or newer is needed"
        return None

    async def _ask_for_rights(self) -> None:
        """Finds out whether the ACL lets us write before a caller does."""
        for key in (keys.version_counter(0), keys.EPOCH):
            await self._link.command("EVAL", "return 1", 1, key)

    async def _wait_for_failure(self, timeout_s: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._link.failed.wait()
