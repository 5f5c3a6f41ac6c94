"""Trims the event log now and then. Knows when; knows no stream."""

import asyncio
import random

import structlog

from feature_service.event_log import EventLog
from service_runtime.errors import Unavailable

_log = structlog.get_logger(__name__)
_TRIM_EVERY_S = 60.0


async def keep_trimmed(event_log: EventLog, rng: random.Random, every_s: float = _TRIM_EVERY_S) -> None:
    """Trims until it is cancelled; replicas do it at different moments, and twice does no harm."""
    while True:
        await asyncio.sleep(every_s * rng.uniform(0.5, 1.5))
        try:
            num_dropped = await event_log.trim()
        except Unavailable:
            continue  # the readiness of the service tells of it
        except Exception as error:  # noqa: BLE001  nobody else would notice that nothing is trimmed any more
            _log.error("trim_failed", exc_info=error)
            continue
        if num_dropped:
            _log.info("event_log_trimmed", entries=num_dropped)
