"""Merges events as the store merges them. Knows arrays and the order of events; knows no file, store or model.

Of a user and a movie the newest event counts by (time, hash, rating; no rating is lowest), and where it has no rating
that of the newest rated one: both are kept, so that merging what was merged with what came later gives what merging all
at once would have given. It is the rule of the store (feature_service/scripts/merge_events.lua), but for its window:
what the store lets go of once a history is full is kept here.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from marquee.client.user_digest import user_digest
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Events:
    """n events, in any order and repeated at will.

    Attributes:
        users: Position in some list of users. int64 [n]
        movies: Position in some list of movies. int64 [n]
        times_ms: Epoch milliseconds, 0 where unknown. int64 [n]
        hashes: What stands for the event id; 0 for imports. uint64 [n]
        ratings: Stars, NaN where not rated. float32 [n]
    """

    users: NDArray[np.int64]
    movies: NDArray[np.int64]
    times_ms: NDArray[np.int64]
    hashes: NDArray[np.uint64]
    ratings: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.users)

    def take(self, rows: NDArray[np.integer] | NDArray[np.bool_]) -> "Events":
        """Returns the given events, by position or by mask."""
        return Events(self.users[rows], self.movies[rows], self.times_ms[rows], self.hashes[rows], self.ratings[rows])

    @classmethod
    def none(cls) -> "Events":
        """Returns no events."""
        return cls.joined([])

    @classmethod
    def joined(cls, parts: Sequence["Events"]) -> "Events":
        """Returns all events of some parts, which name users and movies by the same lists."""
        return cls(
            np.concatenate([np.zeros(0, np.int64), *(part.users for part in parts)]),
            np.concatenate([np.zeros(0, np.int64), *(part.movies for part in parts)]),
            np.concatenate([np.zeros(0, np.int64), *(part.times_ms for part in parts)]),
            np.concatenate([np.zeros(0, np.uint64), *(part.hashes for part in parts)]),
            np.concatenate([np.zeros(0, np.float32), *(part.ratings for part in parts)]),
        )


@dataclass(frozen=True, slots=True)
class Watched:
    """n rows, one for each user and movie, by user and then by (time, movie): the total order of the store.

    Attributes:
        newest: The newest event of each. Its rating is NaN unless that very event was rated.
        rated_times_ms: Of the newest rated event, 0 where none is. int64 [n]
        rated_hashes: The same. uint64 [n]
        ratings: Its stars, NaN where none is. float32 [n]
    """

    newest: Events
    rated_times_ms: NDArray[np.int64]
    rated_hashes: NDArray[np.uint64]
    ratings: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.newest)

    def as_events(self) -> Events:
        """Returns events that merge to these rows."""
        newest = self.newest
        apart = np.isnan(newest.ratings) & ~np.isnan(self.ratings)
        rated = Events(
            newest.users[apart],
            newest.movies[apart],
            self.rated_times_ms[apart],
            self.rated_hashes[apart],
            self.ratings[apart],
        )
        return Events.joined([newest, rated])


def merge(events: Events) -> Watched:
    """Returns what the events come to, whatever their order and repetition."""
    # -0 and 0 are the same stars.
    stars = events.ratings + np.float32(0)
    rated = ~np.isnan(stars)
    order = np.lexsort((np.where(rated, stars, -np.inf), events.hashes, events.times_ms, events.movies, events.users))
    sorted_events, stars, rated = events.take(order), stars[order], rated[order]
    users, movies = sorted_events.users, sorted_events.movies
    is_last = np.ones(len(users), np.bool_)
    is_last[:-1] = (users[1:] != users[:-1]) | (movies[1:] != movies[:-1])
    last = np.flatnonzero(is_last)
    # The nearest rated event at or before the newest one; of another user or movie, it is none.
    nearest = np.maximum.accumulate(np.where(rated, np.arange(len(users)), -1))[last]
    has_rating = (nearest >= 0) & (users[nearest] == users[last]) & (movies[nearest] == movies[last])
    by_age = np.lexsort((movies[last], sorted_events.times_ms[last], users[last]))
    last, nearest, has_rating = last[by_age], nearest[by_age], has_rating[by_age]
    return Watched(
        sorted_events.take(last),
        np.where(has_rating, sorted_events.times_ms[nearest], 0),
        np.where(has_rating, sorted_events.hashes[nearest], np.uint64(0)),
        np.where(has_rating, stars[nearest], np.float32(np.nan)),
    )


def deletion_times(user_ids: Sequence[str], deleted: Mapping[str, int]) -> NDArray[np.int64]:
    """Returns when each user was last deleted, 0 if never. int64 [U].

    Args:
        user_ids: External ids. [U]
        deleted: Times by `user_digest`: the log has forgotten the ids.
    """
    if not deleted:
        return np.zeros(len(user_ids), np.int64)
    return np.array([deleted.get(user_digest(user_id), 0) for user_id in user_ids], np.int64)


def after_deletion(events: Events, deleted_at_ms: NDArray[np.int64]) -> Events:
    """Leaves out what happened up to the deletion of its user; as in the store, an event of that moment goes too."""
    deleted = deleted_at_ms[events.users]
    return events.take((deleted == 0) | (events.times_ms > deleted))
