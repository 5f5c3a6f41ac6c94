"""Holds one user as the store had him. Knows the columns of an answer; knows no version rule, no RPC and no tensor."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from marquee.client.columns import UserRows
from marquee.v1 import user_pb2
from numpy.typing import NDArray

from model_service.queries import ProfileFields, Watched

_OBJECTS_BYTES = 1500
"""What a user takes beside the contents of his arrays: five arrays, the texts, the profile and the places that hold
them; benchmarks/results/near_cache.json compares it with what the process grows by."""


@dataclass(frozen=True, slots=True, eq=False)
class StoredUser:
    """What one read found of a user; two reads are two of them, whatever they found.

    Attributes:
        found: Whether the store has him; else he has no profile and no history.
        profile: What is known of the person.
        history: His newest movies, newest first, as many as were asked for.
        num_watched: Distinct movies ever watched.
        seen: Catalogue numbers of all movies ever watched, ascending; empty unless they were asked for. int32 [n]
        deleted_at_ms: Epoch milliseconds, 0 if he was never deleted.
        expires_at_ms: When a part of this expires, 0 if never; None from a store that cannot tell.
        version: The user version.
        num_movies: A size of the catalogue that has all numbers that are named here.
    """

    found: bool
    profile: ProfileFields
    history: Watched
    num_watched: int
    seen: NDArray[np.int32]
    deleted_at_ms: int
    expires_at_ms: int | None
    version: str
    num_movies: int

    @property
    def size_bytes(self) -> int:
        """What he takes of memory, if nobody else holds the same arrays."""
        return _OBJECTS_BYTES + self.seen.nbytes + self.history.size_bytes

    def copied(self) -> "StoredUser":
        """Returns the same user without a hold on the arrays of a whole answer."""
        return replace(self, history=self.history.copied(), seen=self.seen.copy())


def stored_users(rows: UserRows) -> list[StoredUser]:
    """Returns the users of an answer, in its order."""
    size = len(rows)
    numbers = rows.movie_numbers.astype(np.int64)  # [E]
    no_seen = rows.seen_offsets is None or rows.seen_numbers is None
    seen_numbers = np.zeros(0, np.int32) if rows.seen_numbers is None else rows.seen_numbers
    num_movies = 1 + int(max(numbers.max(initial=-1), seen_numbers.max(initial=-1)))
    # Plain numbers: a numpy scalar costs more to make and to use than all that is done with it here.
    starts = rows.offsets.tolist()
    seen_starts = [0] * (size + 1) if no_seen or rows.seen_offsets is None else rows.seen_offsets.tolist()
    expiries: Sequence[int | None] = [None] * size if rows.expires_at_ms is None else rows.expires_at_ms.tolist()
    found = (rows.statuses == user_pb2.USER_STATUS_FOUND).tolist()
    num_watched, deleted_at_ms = rows.num_watched.tolist(), rows.deleted_at_ms.tolist()
    users = []
    for row, profile in enumerate(rows.profiles):
        some = slice(starts[row], starts[row + 1]) if found[row] else slice(0, 0)
        users.append(
            StoredUser(
                found=found[row],
                profile=profile_fields(profile) if found[row] else ProfileFields(),
                history=Watched(numbers[some], rows.ratings[some], rows.event_times_ms[some]),
                num_watched=num_watched[row],
                seen=seen_numbers[seen_starts[row] : seen_starts[row + 1]] if found[row] else seen_numbers[:0],
                deleted_at_ms=deleted_at_ms[row],
                expires_at_ms=expiries[row],
                version=rows.user_versions[row],
                num_movies=num_movies,
            )
        )
    return users


def profile_fields(profile: user_pb2.UserProfile) -> ProfileFields:
    """Returns the fields that a user tower may know."""
    return ProfileFields(
        profile.gender if profile.HasField("gender") else None,
        float(profile.age) if profile.HasField("age") else None,
        profile.occupation if profile.HasField("occupation") else None,
    )
