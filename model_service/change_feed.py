"""Follows the feed of changes of feature_service and drives what is kept near. Knows its messages; knows no row.

The contract: who hears nothing for `SILENT_FOR_S` takes the feed for lost; while it is lost, or says that it is not
live, nothing may be kept. Every subscription begins with a reset, so what was missed in between is forgotten.
"""

import asyncio
import random
from collections.abc import Callable
from typing import Any

import grpc.aio
import structlog
from marquee.v1 import feature_service_pb2

from model_service.features import FeatureReader
from model_service.near_cache import NearCache

_log = structlog.get_logger(__name__)

SILENT_FOR_S = 3.0
"""The feed speaks every second."""

_RETRY_S = 1.0


class ChangeFeed:
    """One subscription after another. The cache is live exactly while a subscription says that it is."""

    def __init__(
        self,
        reader: FeatureReader,
        cache: NearCache[Any],
        catalogue_changed: Callable[[], object],
        rng: random.Random,
        silent_for_s: float = SILENT_FOR_S,
    ) -> None:
        """Stores whom to follow and whom to tell.

        Args:
            reader: Of feature_service.
            cache: Lets go of users that change.
            catalogue_changed: Called when movies changed.
            rng: Spreads replicas that come back at the same time.
            silent_for_s: How long a feed may say nothing.
        """
        self._reader = reader
        self._cache = cache
        self._catalogue_changed = catalogue_changed
        self._rng = rng
        self._silent_for_s = silent_for_s
        self._was_told = False

    async def follow(self) -> None:
        """Follows until it is cancelled."""
        while True:
            reason = "ended"
            stream = self._reader.stream_changes()
            try:
                while True:
                    async with asyncio.timeout(self._silent_for_s):
                        answer = await stream.read()
                    if not isinstance(answer, feature_service_pb2.StreamChangesResponse):
                        break
                    self._apply(answer)
            except asyncio.CancelledError:
                self._cache.reset(live=False)
                raise
            except grpc.aio.AioRpcError as error:
                reason = error.code().name
            except TimeoutError:
                reason = "SILENT"
            except Exception as error:  # noqa: BLE001  nobody else would notice that nothing is followed any more
                _log.error("change_feed_failed", exc_info=error)
            finally:
                stream.cancel()
            self._set_live(live=False, reason=reason)
            await asyncio.sleep(_RETRY_S * self._rng.uniform(0.5, 1.5))

    def _apply(self, answer: feature_service_pb2.StreamChangesResponse) -> None:
        if answer.reset or answer.live != self._cache.is_live:
            self._set_live(live=answer.live, reason="FEATURE_SERVICE_IS_NOT_TOLD")
        self._cache.invalidate(answer.user_ids)
        if answer.catalogue_changed:
            self._catalogue_changed()

    def _set_live(self, *, live: bool, reason: str) -> None:
        was_live = self._cache.is_live
        if live or was_live:
            self._cache.reset(live=live)
        if live and not was_live:
            _log.info("change_feed_live")
        elif not live and (was_live or not self._was_told):
            # Said once at the start too: until it is live every user is read for every batch.
            _log.warning("change_feed_lost", reason=reason)
        self._was_told = True
