"""Moves user columns between the wire and numpy. Knows little-endian arrays; knows no channel and no model."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from marquee.v1 import feature_service_pb2, user_pb2
from numpy.typing import NDArray

# Limits of ImportHistories, from feature_service.proto.
MAX_IMPORT_USERS = 1000
MAX_IMPORT_ENTRIES = 50_000
MAX_IMPORT_MOVIES = 20_000


class ColumnsError(ValueError):
    """The arrays of a message contradict each other."""


@dataclass(frozen=True, slots=True)
class UserRows:
    """B users as BatchGetUsers with view COLUMNS answers them; E history entries laid end to end.

    Attributes:
        statuses: Values of `UserStatus`. int32 [B]
        profiles: Profiles, empty messages where not FOUND. [B]
        user_versions: [B]
        offsets: User b's history is entries offsets[b]:offsets[b + 1], newest first. int64 [B + 1]
        movie_numbers: Catalogue numbers. int32 [E]
        ratings: Stars, NaN where not rated. float32 [E]
        event_times_ms: Epoch milliseconds. int64 [E]
        num_watched: Distinct movies ever watched. int64 [B]
        deleted_at_ms: Epoch milliseconds, 0 if never deleted. int64 [B]
        expires_at_ms: When the first part of the user expires, epoch milliseconds, 0 if none does; None from a service
            that is too old to tell. int64 [B]
        seen_offsets: As `offsets`, for `seen_numbers`; None unless seen numbers were asked for. int64 [B + 1]
        seen_numbers: Catalogue numbers of all movies ever watched, ascending per user. int32
        seen_omitted: True where the answer had no room for the user's seen numbers: ask for these again. bool [B]
    """

    statuses: NDArray[np.int32]
    profiles: Sequence[user_pb2.UserProfile]
    user_versions: Sequence[str]
    offsets: NDArray[np.int64]
    movie_numbers: NDArray[np.int32]
    ratings: NDArray[np.float32]
    event_times_ms: NDArray[np.int64]
    num_watched: NDArray[np.int64]
    deleted_at_ms: NDArray[np.int64]
    expires_at_ms: NDArray[np.int64] | None = None
    seen_offsets: NDArray[np.int64] | None = None
    seen_numbers: NDArray[np.int32] | None = None
    seen_omitted: NDArray[np.bool_] | None = None

    def __len__(self) -> int:
        return len(self.statuses)


def decode_user_columns(columns: user_pb2.UserColumns) -> UserRows:
    """Returns the rows of an answer as arrays.

    Raises:
        ColumnsError: Lengths do not fit together.
    """
    num_users = len(columns.statuses)
    offsets = _offsets(_array(columns.lengths, "<u4", num_users, "lengths"))
    num_entries = int(offsets[-1])
    if len(columns.profiles) != num_users or len(columns.user_versions) != num_users:
        raise ColumnsError(
            f"{num_users} statuses, {len(columns.profiles)} profiles, {len(columns.user_versions)} versions"
        )
    seen_offsets = seen_numbers = seen_omitted = None
    if columns.seen_lengths or columns.seen_omitted:
        seen_offsets = _offsets(_array(columns.seen_lengths, "<u4", num_users, "seen_lengths"))
        seen_numbers = _array(columns.seen_numbers, "<u4", int(seen_offsets[-1]), "seen_numbers").astype(np.int32)
        seen_omitted = _array(columns.seen_omitted, "u1", num_users, "seen_omitted").astype(np.bool_)
    expires_at_ms = None
    if columns.expires_at_ms:
        expires_at_ms = _array(columns.expires_at_ms, "<i8", num_users, "expires_at_ms").astype(np.int64)
    return UserRows(
        statuses=np.array(columns.statuses, np.int32),
        profiles=columns.profiles,
        user_versions=columns.user_versions,
        offsets=offsets,
        movie_numbers=_array(columns.movie_numbers, "<u4", num_entries, "movie_numbers").astype(np.int32),
        ratings=_array(columns.ratings, "<f4", num_entries, "ratings").astype(np.float32),
        event_times_ms=_array(columns.event_times_ms, "<i8", num_entries, "event_times_ms").astype(np.int64),
        num_watched=_array(columns.num_watched, "<u4", num_users, "num_watched").astype(np.int64),
        deleted_at_ms=_array(columns.deleted_at_ms, "<i8", num_users, "deleted_at_ms").astype(np.int64),
        expires_at_ms=expires_at_ms,
        seen_offsets=seen_offsets,
        seen_numbers=seen_numbers,
        seen_omitted=seen_omitted,
    )


def import_requests(
    user_ids: Sequence[str],
    offsets: NDArray[np.int64],
    movie_ids: Sequence[str],
    movie_rows: NDArray[np.integer],
    ratings: NDArray[np.floating],
    event_times_ms: NDArray[np.integer],
    *,
    not_for_evaluation: bool = False,
) -> Iterator[feature_service_pb2.ImportHistoriesRequest]:
    """Yields the requests that load histories, each within the limits of ImportHistories.

    A user whose history alone exceeds a limit is spread over several requests, which the store merges.

    Args:
        user_ids: The users, all different. [B]
        offsets: User b has entries offsets[b]:offsets[b + 1], in any order. int64 [B + 1]
        movie_ids: All movies that entries may name.
        movie_rows: Position in `movie_ids` per entry. [E]
        ratings: Stars, NaN where not rated. [E]
        event_times_ms: Epoch milliseconds, 0 where unknown. [E]
        not_for_evaluation: Marks the store as holding rows that evaluations hold out.

    Raises:
        ColumnsError: The offsets do not fit the users.
    """
    if len(offsets) != len(user_ids) + 1:
        raise ColumnsError(f"{len(user_ids)} users need {len(user_ids) + 1} offsets, not {len(offsets)}")
    # As many entries as movies allowed can never name too many movies.
    max_entries = MAX_IMPORT_ENTRIES if len(movie_ids) <= MAX_IMPORT_MOVIES else MAX_IMPORT_MOVIES
    for pieces in _batches(_pieces(offsets, max_entries), max_entries):
        entries = slice(pieces[0][1], pieces[-1][2])
        named, movie_indices = np.unique(movie_rows[entries], return_inverse=True)
        yield feature_service_pb2.ImportHistoriesRequest(
            user_ids=[user_ids[user] for user, _, _ in pieces],
            lengths=np.array([end - begin for _, begin, end in pieces], "<u4").tobytes(),
            movie_ids=[movie_ids[row] for row in named.tolist()],
            movie_indices=movie_indices.astype("<u4").tobytes(),
            ratings=ratings[entries].astype("<f4").tobytes(),
            event_times_ms=event_times_ms[entries].astype("<i8").tobytes(),
            not_for_evaluation=not_for_evaluation,
        )


# A user's position and the entries of his that one request carries: (user, begin, end).
_Piece = tuple[int, int, int]


def _pieces(offsets: NDArray[np.int64], max_entries: int) -> Iterator[_Piece]:
    bounds = offsets.tolist()
    for user, (begin, end) in enumerate(pairwise(bounds)):
        for start in range(begin, max(end, begin + 1), max_entries):
            yield user, start, min(start + max_entries, end)


def _batches(pieces: Iterator[_Piece], max_entries: int) -> Iterator[list[_Piece]]:
    """Yields neighbouring pieces together as far as one request allows; never two of one user."""
    batch: list[_Piece] = []
    for piece in pieces:
        user, _, end = piece
        if batch and (len(batch) == MAX_IMPORT_USERS or end - batch[0][1] > max_entries or batch[-1][0] == user):
            yield batch
            batch = []
        batch.append(piece)
    if batch:
        yield batch


def _array(payload: bytes, dtype: str, length: int, name: str) -> NDArray[Any]:
    array = np.frombuffer(payload, dtype) if len(payload) % np.dtype(dtype).itemsize == 0 else None
    if array is None or len(array) != length:
        raise ColumnsError(f"{name} has {len(payload)} bytes where {length} values of {dtype} should be")
    return array


def _offsets(lengths: NDArray[Any]) -> NDArray[np.int64]:
    offsets = np.zeros(len(lengths) + 1, np.int64)
    np.cumsum(lengths, out=offsets[1:])
    return offsets
