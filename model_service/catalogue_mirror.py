"""Follows the catalogue of feature_service. Knows pages and versions of movies; knows no model and no request."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Executor
from typing import Any

from marquee.v1 import movie_pb2

from model_service.catalogue import Catalogue, CatalogueGapError, CatalogueMovie
from model_service.features import FeatureReader, catalogue_replaced

InBackground = Callable[..., Awaitable[Any]]
"""Runs a function with arguments off the event loop."""


def in_background(executor: Executor) -> InBackground:
    """Returns a way to run functions on an executor."""

    async def run(function: Callable[..., Any], *arguments: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(executor, function, *arguments)

    return run


class CatalogueMirror:
    """Reads the catalogue, at first all of it and then what changed."""

    def __init__(self, features: FeatureReader, in_background: InBackground) -> None:
        self._features = features
        self._in_background = in_background

    async def read(self, known: Catalogue | None) -> Catalogue:
        """Returns the catalogue as it is now; the very object `known` if nothing changed.

        Raises:
            Unavailable: It cannot be read now, or was replaced while it was read.
        """
        if known is not None:
            changed = await self._read_since(known)
            if changed is not None:
                return changed
        anew = await self._read_since(None)
        if anew is None:
            raise catalogue_replaced()
        return anew

    async def _read_since(self, known: Catalogue | None) -> Catalogue | None:
        """Returns the catalogue, None if what was read does not continue `known`."""
        movies: list[CatalogueMovie] = []
        catalogue_id, version = ("", 0) if known is None else (known.catalogue_id, known.version)
        since = version
        async for page in self._features.list_movies(since):
            catalogue_id = catalogue_id or page.catalogue_id
            if page.catalogue_id != catalogue_id:
                return None
            version = max(version, page.catalogue_version)
            movies.extend(map(_movie, page.movies))
        if known is not None and not movies and version == known.version:
            return known
        try:
            return await self._changed(known or Catalogue.empty(catalogue_id), movies, version)
        except CatalogueGapError:
            return None

    async def _changed(self, base: Catalogue, movies: Sequence[CatalogueMovie], version: int) -> Catalogue:
        catalogue: Catalogue = await self._in_background(base.with_changes, movies, version)
        return catalogue


def _movie(movie: movie_pb2.Movie) -> CatalogueMovie:
    return CatalogueMovie(
        movie.catalogue_number,
        movie.movie_id,
        movie.title,
        movie.year if movie.HasField("year") else None,
        tuple(movie.genres),
        {name: tuple(bag.values) for name, bag in movie.bags.items()},
        movie.removed,
    )
