"""Keeps the catalogue: gives movies their numbers, mirrors them in memory, follows changes made elsewhere.

Knows movies as they are stored; knows no message of the wire and no user.
"""

import asyncio
import random
from collections.abc import Callable, Sequence
from dataclasses import replace

import structlog

from feature_service import keys
from feature_service.redis_link import Command, RedisLink
from feature_service.scripts import script
from feature_service.store import StoreMarks
from feature_service.value_format import (
    CataloguePointer,
    RatingScale,
    StoredMovie,
    pack_movie,
    pack_pointer,
    pack_rating_scale,
    unpack_movie,
    unpack_rating_scale,
)
from service_runtime.errors import Unavailable

_log = structlog.get_logger(__name__)
_MOVIES_PER_READ = 1000
_MAX_TRIES = 20


class Mirror:
    """A catalogue in memory, as of one version. Position in `movies` is the movie's catalogue number."""

    def __init__(self, catalogue_id: str) -> None:
        self.pointer = CataloguePointer(catalogue_id, 0, 0)
        self.movies: list[StoredMovie] = []
        self.numbers: dict[str, int] = {}

    def put(self, number: int, movie: StoredMovie) -> None:
        """Takes in a movie; numbers come without gaps."""
        if number == len(self.movies):
            self.movies.append(movie)
        else:
            self.movies[number] = movie
        self.numbers[movie.movie_id] = number

    def find(self, movie_id: str) -> StoredMovie | None:
        """Returns a movie by its external id."""
        number = self.numbers.get(movie_id)
        return None if number is None else self.movies[number]


class Catalogue:
    """The current catalogue. Several replicas may write it; the pointer decides who was first."""

    def __init__(self, link: RedisLink, marks: StoreMarks, rng: random.Random) -> None:
        self._link = link
        self._marks = marks
        self._rng = rng
        self._mirror = Mirror("")
        self._refreshing = asyncio.Lock()
        # Writers of one process take turns; only other replicas can be faster.
        self._changing = asyncio.Lock()

    async def newest(self) -> Mirror:
        """Returns the catalogue as of now."""
        _, pointer = await self._marks.ensure()
        return await self.at_least(pointer)

    async def at_least(self, pointer: CataloguePointer) -> Mirror:
        """Returns the catalogue that `pointer` names, of its version or newer."""
        if not self._is_at_least(pointer):
            async with self._refreshing:
                if not self._is_at_least(pointer):
                    await self._refresh(pointer)
        return self._mirror

    async def numbers_of(self, movie_ids: Sequence[str]) -> tuple[dict[str, int], list[str]]:
        """Returns the numbers of movies, and the ids that the catalogue as of now does not know.

        One look a call, whatever it asks about; looks at once share one read, and one refresh if others added movies.
        """
        # Asked every time: numbers of a catalogue that was replaced meanwhile would name other movies.
        numbers = (await self.newest()).numbers
        found = {movie_id: numbers[movie_id] for movie_id in movie_ids if movie_id in numbers}
        return found, [movie_id for movie_id in dict.fromkeys(movie_ids) if movie_id not in found]

    async def rating_scale(self) -> RatingScale | None:
        """Returns which ratings there are; None while nobody told it."""
        (value,) = await self._link.read((keys.RATING_SCALE,))
        return None if value is None else unpack_rating_scale(value)

    async def set_rating_scale(self, scale: RatingScale) -> None:
        """Says which ratings there are from now on."""
        await self._link.write([("SET", keys.RATING_SCALE, pack_rating_scale(scale))])

    async def change(self, edit: Callable[[Mirror], Sequence[StoredMovie]]) -> Mirror:
        """Stores what `edit` makes of the newest catalogue; it is asked again if another replica was faster.

        Args:
            edit: Returns the movies to store, new ones in the order of their numbers; those that are the same as the
                stored ones change nothing. What it raises is passed on, and nothing is stored.
        """
        async with self._changing:
            return await self._change(edit)

    async def _change(self, edit: Callable[[Mirror], Sequence[StoredMovie]]) -> Mirror:
        for attempt in range(_MAX_TRIES):
            mirror = await self.newest()
            seen = mirror.pointer
            version = seen.version + 1
            rows: dict[int, StoredMovie] = {}
            num_movies = seen.num_movies
            for movie in edit(mirror):
                stored = mirror.find(movie.movie_id)
                if stored is not None and replace(movie, version=stored.version) == stored:
                    continue
                number = mirror.numbers[movie.movie_id] if stored is not None else num_movies
                num_movies += stored is None
                rows[number] = replace(movie, version=version)
            if not rows:
                # What is there already may not be where an acknowledged write has to be.
                await self._switch(seen, seen, {})
                return mirror
            pointer = CataloguePointer(seen.catalogue_id, version, num_movies)
            if await self._switch(seen, pointer, rows):
                return await self.at_least(pointer)
            await asyncio.sleep(self._rng.uniform(0, 0.01 * (attempt + 1)))
        raise Unavailable("the catalogue is being changed by many at once", reason="CATALOGUE_BUSY", retry_after_s=1.0)

    async def _switch(self, seen: CataloguePointer, pointer: CataloguePointer, rows: dict[int, StoredMovie]) -> bool:
        arguments: list[bytes | str | int] = [pack_pointer(seen), pack_pointer(pointer), pointer.version]
        for number, movie in rows.items():
            arguments += [number, pack_movie(movie)]
        catalogue_id = seen.catalogue_id
        touched = (keys.CATALOGUE, keys.movie_rows(catalogue_id), keys.movie_changes(catalogue_id))
        command: Command = ("EVAL", script("switch_catalogue"), len(touched), *touched, *arguments)
        (switched,) = await self._link.write([command])
        return bool(switched)

    def _is_at_least(self, pointer: CataloguePointer) -> bool:
        mine = self._mirror.pointer
        return mine.catalogue_id == pointer.catalogue_id and mine.version >= pointer.version

    async def _refresh(self, pointer: CataloguePointer) -> None:
        mirror = self._mirror
        if mirror.pointer.catalogue_id != pointer.catalogue_id:
            mirror = Mirror(pointer.catalogue_id)
        rows, changes = keys.movie_rows(pointer.catalogue_id), keys.movie_changes(pointer.catalogue_id)
        if mirror.pointer.version == 0:
            numbers = list(range(pointer.num_movies))
        else:
            changed = await self._link.command("ZRANGE", changes, f"({mirror.pointer.version}", "+inf", "BYSCORE")
            numbers = sorted(int(number) for number in changed)
        # Up to now and not only up to the pointer: a movie that is new by then may have changed again since, and would
        # leave a gap. What comes early comes once more next time.
        fetched: list[tuple[int, StoredMovie]] = []
        for begin in range(0, len(numbers), _MOVIES_PER_READ):
            page = numbers[begin : begin + _MOVIES_PER_READ]
            values = await self._link.command("HMGET", rows, *page)
            fetched += [(number, unpack_movie(value)) for number, value in zip(page, values, strict=True)]
        for number, movie in fetched:
            mirror.put(number, movie)
        mirror.pointer = pointer
        self._mirror = mirror
        _log.info("catalogue_refreshed", version=pointer.version, num_movies=pointer.num_movies, num_read=len(numbers))
