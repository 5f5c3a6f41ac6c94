"""Keeps the generations that answer, and replaces them when the catalogue changes. Knows no request and no batch."""

import asyncio
import random
import time
from collections.abc import Callable

import structlog

from model_service.catalogue import Catalogue
from model_service.catalogue_mirror import CatalogueMirror, InBackground
from model_service.features import catalogue_replaced
from model_service.generation import Generation
from model_service.indexed_scorer import CandidateIndex
from model_service.indexing import Indexing
from model_service.residents import Residents
from service_runtime.errors import ServiceError, Unavailable
from two_tower.checkpoint import Checkpoint

_log = structlog.get_logger(__name__)
_RETRY_AFTER_S = 1.0
_NO_INDEXING = Indexing(min_movies=0, min_recall=1.0)


class EmptyCatalogueError(Exception):
    """feature_service holds no movie: there is nothing to recommend."""


class Generations:
    """The one reference to all that answers; swapped between batches, never changed.

    A refresh reads what changed in the catalogue and builds the next generation in the background. Callers who ask for
    a refresh share the next one that begins, so that each sees what was written before he asked.
    """

    def __init__(
        self,
        mirror: CatalogueMirror,
        in_background: InBackground,
        min_refresh_interval_s: float,
        patience_s: float,
        clock: Callable[[], float] = time.monotonic,
        indexing: Indexing = _NO_INDEXING,
        indexing_aside: InBackground | None = None,
    ) -> None:
        """Stores what to follow.

        Args:
            mirror: Reads the catalogue.
            in_background: Runs the movie tower.
            min_refresh_interval_s: Between the beginnings of two refreshes at least.
            patience_s: How long a batch waits for a catalogue that is newer than the known one.
            clock: Monotonic seconds.
            indexing: Says which generations want an index of their movies.
            indexing_aside: Builds one anew once the catalogue has changed much, which may take minutes; by default
                what runs the movie tower.
        """
        self._mirror = mirror
        self._in_background = in_background
        self._min_refresh_interval_s = min_refresh_interval_s
        self._patience_s = patience_s
        self._clock = clock
        self._indexing = indexing
        self._indexing_aside = indexing_aside or in_background
        self._being_indexed: asyncio.Task[None] | None = None
        self._residents: Residents | None = None
        self._refreshing = asyncio.Lock()
        self._next_refresh: asyncio.Task[None] | None = None
        self._last_began = -float("inf")

    def residents(self) -> Residents:
        """Returns all that can answer now.

        Raises:
            Unavailable: Nothing can yet.
        """
        if self._residents is None:
            raise Unavailable("no checkpoint or no catalogue is loaded", reason="NOT_READY", retry_after_s=1.0)
        return self._residents

    def current(self) -> Generation:
        """Returns what answers now the requests that name no model.

        Raises:
            Unavailable: Nothing does yet.
        """
        return self.residents().serving

    @property
    def versions(self) -> set[str]:
        """Versions that can answer now."""
        return set() if self._residents is None else set(self._residents.by_version)

    @property
    def serving_version(self) -> str | None:
        """The version that answers the requests that name no model; None if nothing answers yet."""
        return None if self._residents is None else self._residents.serving.checkpoint.version

    async def prepare(self, checkpoint: Checkpoint, in_background: InBackground) -> Generation:
        """Returns a generation of a checkpoint over the catalogue as it is now; nothing answers from it yet.

        Args:
            checkpoint: What is to answer.
            in_background: Runs the movie tower; not what refreshes wait for.

        Raises:
            Unavailable: The catalogue cannot be read now.
            EmptyCatalogueError: It has no movies.
        """
        known = self._residents
        catalogue = _require_movies(await self._mirror.read(None)) if known is None else known.catalogue
        built: Generation = await in_background(Generation.build, checkpoint, catalogue)
        generation: Generation = await in_background(self._indexing.indexed, built)
        return generation

    async def answer_from(self, generation: Generation, *, serves: bool = True) -> None:
        """Takes a generation in, brought to the catalogue of the others: to serve, or for requests that name it."""
        async with self._refreshing:
            if self._residents is None:
                self._residents = Residents(generation, {generation.checkpoint.version: generation})
                return
            if generation.catalogue is not self._residents.catalogue:
                generation = await self._in_background(generation.over, self._residents.catalogue)
            self._residents = self._residents.with_model(generation, serves=serves)

    async def keep_only(self, versions: set[str]) -> set[str]:
        """Lets all other versions go but the one that serves, and returns those that went."""
        async with self._refreshing:
            if self._residents is None:
                return set()
            before = set(self._residents.by_version)
            self._residents = self._residents.only(versions)
            return before - set(self._residents.by_version)

    async def refresh(self) -> Generation:
        """Waits for a refresh that begins after this call, and returns what answers then.

        Raises:
            Unavailable: The catalogue cannot be read now.
        """
        await asyncio.shield(self._begin_refresh())
        return self.current()

    def refresh_soon(self) -> None:
        """Lets a refresh begin that nobody waits for, if anything answers yet."""
        if self._residents is not None:
            self._begin_refresh()

    async def covering(self, catalogue_id: str, version: int, num_movies: int) -> Generation:
        """Returns a generation whose numbers mean what a store's reply means by them.

        For a catalogue that is only newer it waits as long as its patience lasts.

        Args:
            catalogue_id: The reply's.
            version: The reply's.
            num_movies: How many numbers it needs.

        Raises:
            Unavailable: There is none, or the catalogue cannot be read now.
        """
        generation = self.current()
        if generation.catalogue.catalogue_id != catalogue_id or len(generation.catalogue) < num_movies:
            generation = await self.refresh()
            if generation.catalogue.catalogue_id != catalogue_id or len(generation.catalogue) < num_movies:
                raise catalogue_replaced()
        elif generation.catalogue.version < version:
            await asyncio.wait([self._begin_refresh()], timeout=self._patience_s)
            generation = self.current()
        return generation

    async def follow(self, interval_s: float, rng: random.Random) -> None:
        """Refreshes for ever; what cannot be read now is read the next time."""
        was_lost = False
        while True:
            await asyncio.sleep(interval_s * rng.uniform(0.8, 1.2))
            refresh = self._begin_refresh()
            await asyncio.wait([refresh])
            error = refresh.exception()
            if error is None and was_lost:
                _log.info("catalogue_found")
            elif isinstance(error, ServiceError) and not was_lost:
                _log.warning("catalogue_lost", reason=error.message)
            was_lost = error is not None

    def _begin_refresh(self) -> asyncio.Task[None]:
        if self._next_refresh is None:
            self._next_refresh = asyncio.create_task(self._refresh())
            self._next_refresh.add_done_callback(_note_failure)
        return self._next_refresh

    async def _refresh(self) -> None:
        async with self._refreshing:
            await asyncio.sleep(self._last_began + self._min_refresh_interval_s - self._clock())
            # Who asks from here on may know of a change that this refresh no longer sees.
            self._next_refresh = None
            self._last_began = self._clock()
            residents = self.residents()
            catalogue = await self._mirror.read(residents.catalogue)
            if catalogue is residents.catalogue:
                return
            try:
                _require_movies(catalogue)
            except EmptyCatalogueError as error:
                raise Unavailable(str(error), reason="EMPTY_CATALOGUE", retry_after_s=_RETRY_AFTER_S) from error
            self._residents = await self._over(residents, catalogue)
            self._begin_indexing()
            _log.info(
                "catalogue",
                catalogue_id=catalogue.catalogue_id,
                catalogue_version=catalogue.version,
                num_movies=len(catalogue),
            )

    async def _over(self, residents: Residents, catalogue: Catalogue) -> Residents:
        """Returns the same models over another catalogue: those who answer together must mean the same movies."""
        moved = {
            version: await self._in_background(generation.over, catalogue)
            for version, generation in residents.by_version.items()
        }
        return Residents(moved[residents.serving.checkpoint.version], moved)

    def _begin_indexing(self) -> None:
        if self._being_indexed is None and any(map(self._indexing.is_due, self.residents().by_version.values())):
            self._being_indexed = asyncio.create_task(self._index_again())
            self._being_indexed.add_done_callback(_note_failure)

    async def _index_again(self) -> None:
        """Builds the indexes that know too little of the movies; until then these are ranked beside the index."""
        try:
            for version, generation in self.residents().by_version.items():
                if self._indexing.is_due(generation):
                    index = await self._indexing_aside(self._indexing.build, generation)
                    async with self._refreshing:
                        await self._take_index(version, index)
        finally:
            self._being_indexed = None

    async def _take_index(self, version: str, index: CandidateIndex | None) -> None:
        residents = self.residents()
        generation = residents.of(version)
        if index is None or generation is None:
            return
        generation = await self._in_background(generation.with_index, index)
        self._residents = residents.with_model(generation, serves=version == self.serving_version)


def _require_movies(catalogue: Catalogue) -> Catalogue:
    if len(catalogue) == 0:
        raise EmptyCatalogueError("feature_service holds no movies yet: publish some")
    return catalogue


def _note_failure(task: asyncio.Task[None]) -> None:
    """Takes note of a failure that nobody waited for; those who wait get it themselves."""
    if not task.cancelled() and (error := task.exception()) is not None and not isinstance(error, ServiceError):
        _log.error("catalogue_refresh_failed", exc_info=error)
