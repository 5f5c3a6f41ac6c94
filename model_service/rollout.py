"""Follows the labels of the registry: loads what they name beside what answers, and swaps. Knows no request.

A version is read, checked against its golden users, run over the catalogue and warmed up, and embeds who is near,
before anybody is answered by it; then one reference is swapped between two batches. What served before stays in memory,
so that going back is a swap too. A version that is refused changes nothing: what answers goes on, and the reason is
kept for who asks.
"""

import asyncio
import random
from collections.abc import Mapping, Sequence
from contextlib import suppress

import structlog
from marquee.client.errors import CallError

from model_service.catalogue_mirror import InBackground
from model_service.checkpoint_loader import CheckpointLoader
from model_service.device_work import DeviceWork
from model_service.freed_memory import hand_back
from model_service.generations import EmptyCatalogueError, Generations
from model_service.model_table import ModelTable
from model_service.users_ahead import UsersAhead
from model_service.warm_up import warm_up
from service_runtime.errors import ServiceError
from service_runtime.health import Health
from two_tower.checkpoint import Checkpoint
from two_tower.errors import RegistryError, TwoTowerError
from two_tower.registry import Canary, LabelChange, Registry

_log = structlog.get_logger(__name__)

CHECKPOINT = "checkpoint"
CATALOGUE = "catalogue"
DEPENDENCIES = (CHECKPOINT, CATALOGUE)

_MAX_CHOSEN = 2
"""Versions that stay in memory only because an operator loaded them; the newest."""


class Rollout:
    """Decides which versions are in memory, and which of them serves.

    Attributes:
        table: What became of each version.
        canary: The version on trial, once it is in memory.
    """

    def __init__(
        self,
        registry: Registry,
        label: str,
        also_labels: Sequence[str],
        loader: CheckpointLoader,
        generations: Generations,
        work: DeviceWork,
        ahead: UsersAhead,
        health: Health,
        table: ModelTable,
        *,
        in_background: InBackground,
        warm_up_rows: Sequence[int],
        later_warm_up_rows: Sequence[int],
        poll_s: float,
        retry_s: float,
        rng: random.Random,
    ) -> None:
        """Stores what to follow and where to say what is missing.

        Args:
            registry: Its labels are followed.
            label: What it names serves.
            also_labels: What they name is in memory for requests that name it.
            loader: Reads versions.
            generations: Answers.
            work: Answers the warm-up's requests.
            ahead: Embeds users by what is going to serve.
            health: Published to callers.
            table: Keeps what becomes of each version.
            in_background: Runs a function off the event loop; not what the catalogue waits for.
            warm_up_rows: Sizes of the batches that warm up the first version.
            later_warm_up_rows: Of those that warm up a version beside one that answers.
            poll_s: About how often labels are looked at.
            retry_s: About how long to wait before looking again while nothing serves.
            rng: Spreads the waits of many replicas.
        """
        self.table = table
        self.canary: Canary | None = None
        self._registry = registry
        self._label = label
        self._also_labels = also_labels
        self._loader = loader
        self._generations = generations
        self._work = work
        self._ahead = ahead
        self._health = health
        self._in_background = in_background
        self._warm_up_rows = warm_up_rows
        self._later_warm_up_rows = later_warm_up_rows
        self._poll_s = poll_s
        self._retry_s = retry_s
        self._rng = rng
        self._one_at_a_time = asyncio.Lock()
        self._look = asyncio.Event()
        self._step = CHECKPOINT
        self._in_hand: Checkpoint | None = None
        self._previous: str | None = None
        self._chosen: list[str] = []
        self._labels_lost = ""
        self._labels: Mapping[str, LabelChange] = {}
        self._answering: dict[str, str] = {}

    def version_of(self, label: str) -> str | None:
        """Returns the version that answers for a label, None if it names none; it may not be in memory."""
        return self._answering.get(label)

    async def reach(self) -> None:
        """Returns once requests can be answered."""
        while self._generations.serving_version is None:
            await self.look()
            if self._generations.serving_version is None:
                await asyncio.sleep(self._retry_s * self._rng.uniform(0.5, 1.5))

    async def follow(self) -> None:
        """Follows the labels for ever."""
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._poll_s * self._rng.uniform(0.8, 1.2)):
                    await self._look.wait()
            self._look.clear()
            try:
                await self.look()
            except Exception as error:  # noqa: BLE001 whatever it is may be gone the next time, and the log has it
                _log.error("labels_not_followed", exc_info=error)

    def look_soon(self) -> None:
        """Lets `follow` look now: a label was moved."""
        self._look.set()

    async def look(self) -> None:
        """Looks at the labels once, and does what they say as far as it can be done."""
        async with self._one_at_a_time:
            try:
                self._labels = await self._in_background(self._read_labels)
            except (RegistryError, OSError) as error:
                await self._labels_unreadable(str(error))
                return
            self._labels_lost = ""
            change = self._labels.get(self._label)
            if change is None:
                if self._generations.serving_version is None:
                    await self._health.lost(
                        CHECKPOINT, f"no checkpoint of {self._registry.path} is labelled {self._label!r} yet"
                    )
                return
            await self._serve(change.version)
            await self._try(change.canary)
            await self._have_others()
            self._note_answering()
            await self._keep_only_wanted(change)

    async def load(self, version: str) -> None:
        """Makes a version resident because an operator wants it; what became of it is in the table.

        Raises:
            InvalidNameError: No version can be called that.
            UnknownVersionError: There is no such version.
            RegistryError: The registry cannot be read.
        """
        await self._in_background(self._registry.path_of, version)
        async with self._one_at_a_time:
            if version in self._generations.versions:
                return
            await self._make_resident(version, serves=False)
            if version in self._generations.versions:
                self._chosen = [*(each for each in self._chosen if each != version), version][-_MAX_CHOSEN:]

    def _read_labels(self) -> dict[str, LabelChange]:
        return {name: self._registry.label_history(name)[-1] for name in self._registry.labels()}

    async def _labels_unreadable(self, reason: str) -> None:
        if self._generations.serving_version is None:
            await self._health.lost(CHECKPOINT, reason)
        elif self._labels_lost != reason:
            _log.warning("labels_lost", reason=reason)
        self._labels_lost = reason

    async def _serve(self, version: str) -> None:
        before = self._generations.serving_version
        if version == before:
            return
        if version in self._generations.versions:
            await self._generations.answer_from(self._generations.residents().by_version[version])
        else:
            await self._make_resident(version, serves=True)
        if self._generations.serving_version == version:
            self._previous = before
            _log.info("serving", model_version=version, label=self._label, before=before or "nothing")

    async def _try(self, canary: Canary | None) -> None:
        if canary is None or canary.version == self._generations.serving_version:
            self.canary = None
            return
        await self._have(canary.version)
        self.canary = canary if canary.version in self._generations.versions else None

    async def _have_others(self) -> None:
        for name in self._also_labels:
            if name in self._labels:
                await self._have(self._labels[name].version)

    def _note_answering(self) -> None:
        """Until what a label names is in memory, what it named before goes on, if the label is one that is followed."""
        followed = {self._label, *self._also_labels}
        for name in [name for name in self._answering if name not in self._labels]:
            del self._answering[name]
        for name, change in self._labels.items():
            if change.version in self._generations.versions or name not in followed:
                self._answering[name] = change.version

    async def _keep_only_wanted(self, change: LabelChange) -> None:
        kept = {change.version, *(self._answering[name] for name in self._also_labels if name in self._answering)}
        kept.update(self._chosen)
        kept.update(version for version in (self._previous, change.canary and change.canary.version) if version)
        gone = await self._generations.keep_only(kept)
        for version in gone:
            self.table.let_go(version)
            _log.info("let_go", model_version=version)
        if gone:
            await self._in_background(hand_back)

    async def _have(self, version: str) -> None:
        if version not in self._generations.versions and self._generations.serving_version is not None:
            await self._make_resident(version, serves=False)

    async def _make_resident(self, version: str, *, serves: bool) -> None:
        """Loads a version if it may be tried now; notes what became of it."""
        is_first = self._generations.serving_version is None
        if not is_first and not self.table.may_try(version) and version not in self._chosen:
            return
        self.table.loading(version)
        try:
            checkpoint = await self._bring_in(version, serves)
        except (TwoTowerError, EmptyCatalogueError, ServiceError, CallError) as error:
            reason = str(error)
        except Exception as error:  # noqa: BLE001 whatever it is may be gone the next time, and the log has it
            _log.error("loading_failed", model_version=version, exc_info=error)
            reason = f"{type(error).__name__}, see the log"
        else:
            self.table.resident(version, checkpoint)
            return
        is_news = self.table[version].reason != reason
        self.table.failed(version, reason)
        if is_first:
            await self._health.lost(self._step, reason)
        elif is_news:
            _log.warning("refused", model_version=version, reason=reason)

    async def _bring_in(self, version: str, serves: bool) -> Checkpoint:
        is_first = self._generations.serving_version is None
        self._step = CHECKPOINT
        if self._in_hand is None or self._in_hand.version != version:
            self._in_hand = None
            self._in_hand = await self._in_background(self._loader.load, version)
        checkpoint = self._in_hand
        if is_first:
            await self._health.found(CHECKPOINT)
        self._step = CATALOGUE
        generation = await self._generations.prepare(checkpoint, self._in_background)
        self._step = CHECKPOINT
        rows = self._warm_up_rows if is_first else self._later_warm_up_rows
        await self._in_background(warm_up, self._work, generation, rows)
        if serves:
            await self._ahead.embed(generation, self._in_background)
        await self._generations.answer_from(generation, serves=serves)
        self._in_hand = None
        if is_first:
            await self._health.found(CATALOGUE)
        _log.info("checkpoint", model_version=version, model=checkpoint.manifest.model)
        return checkpoint
