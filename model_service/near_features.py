"""Reads users from near where they are, and from feature_service where not. Knows rows; knows no batch and no tensor.

What is near is as new as the feed of changes is: milliseconds behind, and at most `change_feed.SILENT_FOR_S` behind a
feed that died without a word. Who knows of a newer state says so and is read for.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import structlog
from marquee.client.user_version import UserVersion, UserVersionError

from model_service.embedded_user import EmbeddedUser
from model_service.features import FeatureReader, UsersRead
from model_service.generation import Generation
from model_service.near_cache import Cached, NearCache
from model_service.stored_user import StoredUser
from two_tower.heads import Heads

_log = structlog.get_logger(__name__)

_NEVER = 1 << 62
"""A change later than any: no user who is near includes it."""

EmbeddedNearUser = tuple[StoredUser, EmbeddedUser]

_MODELS = 2
"""Generations that a user is kept embedded for: what answers now, and what answered before or answers beside it."""


@dataclass(frozen=True, slots=True, eq=False)
class NearUser:
    """One user as he was read.

    Attributes:
        user: He, with the movies ever watched.
        catalogue_id: Whose numbers he uses.
        epoch: Of the store.
        history_limit: Newest entries that were asked for.
        embedded: As the generations of late embedded him, the last one first.
    """

    user: StoredUser
    catalogue_id: str
    epoch: str
    history_limit: int
    embedded: tuple[EmbeddedUser, ...] = ()


@dataclass(frozen=True, slots=True)
class NearRead(UsersRead):
    """Some users, and as what they are kept.

    Attributes:
        near: Each user; empty if nothing is kept at this moment.
    """

    near: Sequence[NearUser]


class NearFeatures:
    """A `FeatureReader` with a memory.

    Attributes:
        num_embedded_taken: Users that did not have to be embedded, so far.
        num_embedded_made: Users that were embedded and kept so.
    """

    def __init__(self, reader: FeatureReader, cache: NearCache[NearUser], wall_clock: Callable[[], float]) -> None:
        """Stores who reads, what keeps, and what tells the seconds since the epoch."""
        self._reader = reader
        self._cache = cache
        self._wall_clock = wall_clock
        self._catalogue_version = 0
        self._store: tuple[str, str] | None = None
        self.num_embedded_taken = 0
        self.num_embedded_made = 0

    @property
    def keeps(self) -> bool:
        """Whether anything is kept at this moment."""
        return self._cache.is_live and self._cache.max_bytes > 0

    async def read_users(
        self,
        user_ids: Sequence[str],
        history_limit: int,
        *,
        with_seen: bool,
        deadline: float,
        at_least: Mapping[str, str],
    ) -> NearRead:
        """Reads users; only those are asked for who are not near.

        Args:
            user_ids: All different, at least one.
            history_limit: Newest entries wanted of each.
            with_seen: Whether all movies ever watched are needed too.
            deadline: When nobody waits any more, in monotonic seconds.
            at_least: Versions that callers know of, by user; those not named may be as old as the cache is.

        Raises:
            Unavailable: The store cannot be read now.
        """
        if not self.keeps:
            for user_id in user_ids:
                self._cache.get(user_id, 0, 0)  # counted as passed by
            read = await self._reader.read_users(user_ids, history_limit, with_seen=with_seen, deadline=deadline)
            return NearRead(read.users, read.catalogue_id, read.catalogue_version, [])
        now_ms = int(self._wall_clock() * 1000)
        if at_least:
            looked_up = [self._near(each, history_limit, at_least.get(each, ""), now_ms) for each in user_ids]
        else:
            looked_up = self._cache.get_all(user_ids, now_ms, lambda near: near.history_limit >= history_limit)
        users = [user for user in looked_up if user is not None]
        if len(users) < len(user_ids):
            near, found = users, dict(zip(user_ids, looked_up, strict=True))
            missing = [user_id for user_id, user in found.items() if user is None]
            fresh = await self._read(missing, history_limit, deadline)
            stores = {(user.catalogue_id, user.epoch) for user in (*near, *fresh.values())}
            if near and len(stores) > 1:
                # What is near is of a catalogue or a store that was replaced since, and `_read` let go of it.
                fresh = await self._read(user_ids, history_limit, deadline)
            found |= fresh
            users = [user for user in found.values() if user is not None]
        return NearRead([user.user for user in users], users[0].catalogue_id, self._catalogue_version, users)

    def embedded(self, user_ids: Sequence[str], read: NearRead, heads: Heads) -> dict[str, EmbeddedUser]:
        """Returns those of the users who were read that were embedded before, by this model over these movies.

        Args:
            user_ids: Who were read.
            read: What was.
            heads: The model and the movies.
        """
        embedded = {
            user_id: each
            for user_id, near in zip(user_ids, read.near, strict=bool(read.near))
            for each in near.embedded
            if each.heads() is heads
        }
        self.num_embedded_taken += len(embedded)
        return embedded

    def embedded_users(self, user_ids: Sequence[str], generation: Generation) -> list[EmbeddedNearUser] | None:
        """Returns users who are all near and embedded by this generation, and know of no movie beyond its catalogue.

        None where somebody must be read, or embedded, or a newer catalogue be read: then nothing is counted.
        """
        found = [user for user in self.embedded_each(user_ids, generation) if user is not None]
        if len(found) < len(user_ids):
            return None
        self.note_answered(user_ids)
        return found

    def embedded_each(self, user_ids: Sequence[str], generation: Generation) -> list[EmbeddedNearUser | None]:
        """Returns likewise each of some users, None in the place of one who is not so. Nothing is counted.

        Who answers from it says so by `note_answered`.
        """
        catalogue, heads = generation.catalogue, generation.heads
        if self._catalogue_version > catalogue.version:
            return [None] * len(user_ids)
        catalogue_id, num_movies = catalogue.catalogue_id, len(catalogue)
        found: list[EmbeddedNearUser | None] = []
        for near in self._cache.peek_each(user_ids, int(self._wall_clock() * 1000)):
            embedded = None if near is None else _by(heads, near)
            if (
                near is None
                or embedded is None
                or near.catalogue_id != catalogue_id
                or near.user.num_movies > num_movies
            ):
                found.append(None)
            else:
                found.append((near.user, embedded))
        return found

    def note_answered(self, user_ids: Sequence[str]) -> None:
        """Counts users who were answered for as they were embedded before, and keeps them for longer."""
        self._cache.note_hits(user_ids)
        self.num_embedded_taken += len(user_ids)

    def asked_last(self, num_users: int) -> list[str]:
        """Returns the ids of the users who were asked about last, the last one first; at most so many."""
        return self._cache.newest(num_users)

    def to_embed(self, user_ids: Sequence[str], generation: Generation) -> dict[str, StoredUser]:
        """Returns those of some users who are near and embedded by other generations, and could be by this one.

        Args:
            user_ids: All different.
            generation: What is to embed them; its catalogue may be older than what is near of a user.
        """
        catalogue, window = generation.catalogue, generation.checkpoint.manifest.history_window
        found = {}
        for user_id in user_ids:
            near = self._cache.peek(user_id)
            if (
                near is not None
                and near.embedded
                and _by(generation.heads, near) is None
                and near.catalogue_id == catalogue.catalogue_id
                and near.user.num_movies <= len(catalogue)
                and near.history_limit >= window
            ):
                found[user_id] = near.user
        return found

    def keep(self, made: Mapping[str, EmbeddedUser], users: Mapping[str, StoredUser]) -> int:
        """Keeps users as they were embedded, as long as what they were embedded from is kept; returns how many.

        Args:
            made: By id.
            users: What each was embedded from, by id.
        """
        num_kept = sum(self.keep_one(user_id, users[user_id], embedded) for user_id, embedded in made.items())
        self.num_embedded_made += num_kept
        return num_kept

    def keep_one(self, user_id: str, user: StoredUser, embedded: EmbeddedUser) -> bool:
        """Keeps a user as he was embedded, or as more was worked out of him since, and tells whether it could.

        Args:
            user_id: Who he is.
            user: What he was embedded from; nothing is kept if that is no longer what is near.
            embedded: As he is to be kept.
        """
        near = self._cache.peek(user_id)
        if near is None or near.user is not user:
            return False
        others = [each for each in near.embedded if each.heads() not in (None, embedded.heads())]
        better = replace(near, embedded=(embedded, *others)[:_MODELS])
        self._cache.amend(user_id, near, better, _embedded_bytes(better) - _embedded_bytes(near))
        return True

    def _near(self, user_id: str, history_limit: int, wanted: str, now_ms: int) -> NearUser | None:
        epoch, counter = _parse(wanted)
        return self._cache.get(
            user_id,
            counter,
            now_ms,
            lambda near: near.history_limit >= history_limit and epoch in ("", near.epoch),
        )

    async def _read(self, user_ids: Sequence[str], history_limit: int, deadline: float) -> dict[str, NearUser]:
        """Reads users and keeps them."""
        reading = self._cache.begin()
        try:
            read = await self._reader.read_users(user_ids, history_limit, with_seen=True, deadline=deadline)
        except BaseException:
            self._cache.fail(reading)
            raise
        self._catalogue_version = read.catalogue_version
        users = {}
        entries = []
        for user_id, user in zip(user_ids, read.users, strict=True):
            epoch, counter = _parse(user.version)
            near = users[user_id] = NearUser(user.copied(), read.catalogue_id, epoch, history_limit)
            if user.expires_at_ms is not None:  # a service that cannot tell when he expires is too old to keep him
                entries.append((user_id, Cached(near, counter, near.user.size_bytes, user.expires_at_ms)))
        self._notice_another_store(users.values())
        self._cache.end(reading, entries)
        return users

    def _notice_another_store(self, users: Iterable[NearUser]) -> None:
        """Lets go of everything if the store was replaced: versions of two epochs cannot be compared."""
        for user in users:
            if self._store not in (None, (user.epoch, user.catalogue_id)):
                _log.warning("store_replaced", store_epoch=user.epoch, catalogue_id=user.catalogue_id)
                self._cache.reset(live=self._cache.is_live)
            self._store = (user.epoch, user.catalogue_id)


def _by(heads: Heads, near: NearUser) -> EmbeddedUser | None:
    for each in near.embedded:
        if each.heads() is heads:
            return each
    return None


def _embedded_bytes(near: NearUser) -> int:
    return sum(each.size_bytes for each in near.embedded)


def _parse(text: str) -> tuple[str, int]:
    """Returns epoch and counter; a text that is no version is newer than all that is near, so that the store judges."""
    if not text:
        return "", 0
    try:
        version = UserVersion.parse(text)
    except UserVersionError:
        return "", _NEVER
    return version.epoch, version.counter


def newer_version(one: str, other: str) -> str:
    """Returns the version that a state must include to include both; one that no state includes if they contradict."""
    if not one:
        return other
    (epoch, counter), (other_epoch, other_counter) = _parse(one), _parse(other)
    if _NEVER in (counter, other_counter) or epoch != other_epoch:
        return "contradictory"
    return one if counter >= other_counter else other
