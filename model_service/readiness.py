"""Brings a service from nothing to its first answer, and says what is missing meanwhile. Knows no request."""

import asyncio
import random
from collections.abc import Sequence

import structlog
from marquee.client.errors import CallError

from model_service.catalogue_mirror import InBackground
from model_service.checkpoint_loader import CheckpointLoader, NoCheckpointError
from model_service.device_work import DeviceWork
from model_service.generations import EmptyCatalogueError, Generations
from model_service.warm_up import warm_up
from service_runtime.errors import ServiceError
from service_runtime.health import Health
from two_tower.checkpoint import Checkpoint
from two_tower.errors import TwoTowerError

_log = structlog.get_logger(__name__)

CHECKPOINT = "checkpoint"
CATALOGUE = "catalogue"
DEPENDENCIES = (CHECKPOINT, CATALOGUE)


class Readiness:
    """Waits for a checkpoint and a catalogue, as long as it takes."""

    def __init__(
        self,
        health: Health,
        loader: CheckpointLoader,
        generations: Generations,
        work: DeviceWork,
        *,
        in_background: InBackground,
        warm_up_rows: Sequence[int],
        retry_s: float,
        rng: random.Random,
    ) -> None:
        """Stores what is needed and where to say so.

        Args:
            health: Published to callers.
            loader: Gives the checkpoint.
            generations: Gives the catalogue, and answers from then on.
            work: Answers the warm-up's requests.
            in_background: Runs a function off the event loop.
            warm_up_rows: Sizes of the warm-up's batches.
            retry_s: About how long to wait before looking again.
            rng: Spreads the waits of many replicas.
        """
        self._health = health
        self._loader = loader
        self._generations = generations
        self._work = work
        self._in_background = in_background
        self._warm_up_rows = warm_up_rows
        self._retry_s = retry_s
        self._rng = rng
        self._checkpoint: Checkpoint | None = None
        self._step = CHECKPOINT

    async def reach(self) -> None:
        """Returns once requests can be answered."""
        while True:
            try:
                await self._try()
            except (NoCheckpointError, TwoTowerError, EmptyCatalogueError, ServiceError, CallError) as error:
                reason = str(error)
            except Exception as error:  # noqa: BLE001 whatever it is may be gone the next time, and the log has it
                _log.error("not_ready", step=self._step, exc_info=error)
                reason = f"{type(error).__name__}, see the log"
            else:
                return
            await self._health.lost(self._step, reason)
            await asyncio.sleep(self._retry_s * self._rng.uniform(0.5, 1.5))

    async def _try(self) -> None:
        self._step = CHECKPOINT
        # Looked up every time, for the label may have moved while something else was missing.
        checkpoint = self._checkpoint = await self._in_background(self._loader.load, self._checkpoint)
        await self._health.found(CHECKPOINT)
        self._step = CATALOGUE
        generation = await self._generations.prepare(checkpoint)
        self._step = CHECKPOINT
        await self._in_background(warm_up, self._work, generation, self._warm_up_rows)
        self._generations.answer_from(generation)
        await self._health.found(CATALOGUE)
