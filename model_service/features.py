"""Reads users and movies from feature_service. Knows its RPCs and their limits; knows no tensor and no batch."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import grpc
import grpc.aio
import numpy as np
from marquee.client.columns import UserRows, decode_user_columns
from marquee.client.errors import read_error
from marquee.v1 import feature_service_pb2, feature_service_pb2_grpc, user_pb2
from numpy.typing import NDArray

from service_runtime.errors import Unavailable

# Limits of BatchGetUsers with view COLUMNS, from feature_service.proto.
MAX_USERS = 1000
MAX_USERS_WITH_SEEN = 250
MAX_ENTRIES = 200_000
MAX_HISTORY_LIMIT = 1000

_Reply = TypeVar("_Reply")
_MIN_TIMEOUT_S = 0.001
_RETRY_AFTER_S = 1.0
_GOES_AWAY = {
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
    grpc.StatusCode.CANCELLED,
}


@dataclass(frozen=True, slots=True)
class UsersRead:
    """Rows of some users and the catalogue whose numbers they use.

    Attributes:
        rows: In the order in which they were asked for.
        catalogue_id: Whose numbers.
        catalogue_version: As of the read.
    """

    rows: UserRows
    catalogue_id: str
    catalogue_version: int

    def num_movies_named(self) -> int:
        """Returns the smallest size of a catalogue that has all numbers of the rows."""
        seen = self.rows.seen_numbers
        newest = max(self.rows.movie_numbers.max(initial=-1), -1 if seen is None else seen.max(initial=-1))
        return int(newest) + 1


class FeatureReader:
    """Reads from feature_service over one channel."""

    def __init__(self, channel: grpc.aio.Channel, timeout_s: float) -> None:
        """Stores the channel and how long a read may take at most."""
        self._stub = feature_service_pb2_grpc.FeatureServiceStub(channel)
        self._timeout_s = timeout_s

    async def read_users(
        self, user_ids: Sequence[str], history_limit: int, *, with_seen: bool, deadline: float
    ) -> UsersRead:
        """Reads users, in one call as long as they fit.

        Args:
            user_ids: All different, at least one.
            history_limit: Newest entries wanted of each.
            with_seen: Whether to read all movies ever watched too.
            deadline: When nobody waits any more, in monotonic seconds.

        Raises:
            Unavailable: The store cannot be read now.
        """
        history_limit = min(history_limit, MAX_HISTORY_LIMIT)
        most = min(MAX_USERS_WITH_SEEN if with_seen else MAX_USERS, MAX_ENTRIES // max(1, history_limit))
        parts = [user_ids[start : start + most] for start in range(0, len(user_ids), most)]
        reads = await asyncio.gather(*(self._read_part(part, history_limit, with_seen, deadline) for part in parts))
        if len({read.catalogue_id for read in reads}) > 1:
            raise catalogue_replaced()
        version = max(read.catalogue_version for read in reads)
        return UsersRead(join_rows([read.rows for read in reads]), reads[0].catalogue_id, version)

    def stream_changes(
        self,
    ) -> (
        "grpc.aio.UnaryStreamCall[feature_service_pb2.StreamChangesRequest, feature_service_pb2.StreamChangesResponse]"
    ):
        """Begins to follow what changes."""
        return self._stub.StreamChanges(feature_service_pb2.StreamChangesRequest())

    async def list_movies(self, since_catalogue_version: int) -> AsyncIterator[feature_service_pb2.ListMoviesResponse]:
        """Yields the pages of the catalogue, or of what changed since a version if it is not 0.

        Raises:
            Unavailable: The store cannot be read now.
        """
        request = feature_service_pb2.ListMoviesRequest(since_catalogue_version=since_catalogue_version)
        while True:
            page = await _translated(self._stub.ListMovies(request, timeout=self._timeout_s))
            yield page
            if not page.next_page_token:
                break
            request.page_token = page.next_page_token

    async def _read_part(
        self, user_ids: Sequence[str], history_limit: int, with_seen: bool, deadline: float
    ) -> UsersRead:
        request = feature_service_pb2.BatchGetUsersRequest(
            user_ids=user_ids,
            history_limit=history_limit,
            view=feature_service_pb2.USER_VIEW_COLUMNS,
            include_seen=with_seen,
        )
        timeout_s = max(_MIN_TIMEOUT_S, min(self._timeout_s, deadline - time.monotonic()))
        reply = await _translated(self._stub.BatchGetUsers(request, timeout=timeout_s))
        read = UsersRead(decode_user_columns(reply.columns), reply.catalogue_id, reply.catalogue_version)
        omitted = read.rows.seen_omitted
        if omitted is None or not omitted.any():
            return read
        again = np.flatnonzero(omitted).tolist()
        if len(again) == len(user_ids):
            raise RuntimeError("feature_service leaves out the seen movies of every user it was asked for")
        rest = await self._read_part([user_ids[row] for row in again], history_limit, with_seen, deadline)
        if rest.catalogue_id != read.catalogue_id:
            raise catalogue_replaced()
        return replace(read, rows=_with_seen_of(read.rows, again, rest.rows))


def catalogue_replaced() -> Unavailable:
    """Returns what callers are told while numbers of two catalogues are about."""
    return Unavailable("the catalogue is being replaced", reason="CATALOGUE_REPLACED", retry_after_s=_RETRY_AFTER_S)


async def _translated(call: Awaitable[_Reply]) -> _Reply:
    try:
        return await call
    except grpc.aio.AioRpcError as error:
        failure = read_error(error)
        if failure.reason == "FOREIGN_CATALOGUE":
            raise catalogue_replaced() from error
        if error.code() not in _GOES_AWAY:
            raise failure from error
        raise Unavailable(
            f"feature_service cannot be read now ({error.code().name})",
            reason="FEATURE_SERVICE_UNAVAILABLE",
            retry_after_s=failure.retry_after_s or _RETRY_AFTER_S,
        ) from error


def _with_seen_of(rows: UserRows, again: Sequence[int], rest: UserRows) -> UserRows:
    """Returns `rows` with the seen numbers of the rows `again` taken from `rest`."""
    seen = _seen(rows)
    for row, numbers in zip(again, _seen(rest), strict=True):
        seen[row] = numbers
    return replace(
        rows,
        seen_offsets=_offsets_of(seen),
        seen_numbers=np.concatenate(seen),
        seen_omitted=np.zeros(len(rows), np.bool_),
    )


def _seen(rows: UserRows) -> list[NDArray[np.int32]]:
    if rows.seen_offsets is None or rows.seen_numbers is None:
        # A reply leaves the arrays out when there is nothing in them.
        return [np.zeros(0, np.int32)] * len(rows)
    return np.split(rows.seen_numbers, rows.seen_offsets[1:-1])


def _offsets_of(parts: Sequence[NDArray[np.int32]]) -> NDArray[np.int64]:
    return np.concatenate(([0], np.cumsum([len(part) for part in parts]))).astype(np.int64)


def split_rows(rows: UserRows) -> list[UserRows]:
    """Returns each row alone."""
    seen = _seen(rows)
    parts = []
    for row in range(len(rows)):
        entries = slice(int(rows.offsets[row]), int(rows.offsets[row + 1]))
        one = slice(row, row + 1)
        parts.append(
            UserRows(
                statuses=rows.statuses[one],
                profiles=rows.profiles[one],
                user_versions=rows.user_versions[one],
                offsets=np.array([0, entries.stop - entries.start], np.int64),
                movie_numbers=rows.movie_numbers[entries],
                ratings=rows.ratings[entries],
                event_times_ms=rows.event_times_ms[entries],
                num_watched=rows.num_watched[one],
                deleted_at_ms=rows.deleted_at_ms[one],
                expires_at_ms=None if rows.expires_at_ms is None else rows.expires_at_ms[one],
                seen_offsets=np.array([0, len(seen[row])], np.int64),
                seen_numbers=seen[row],
                seen_omitted=np.zeros(1, np.bool_),
            )
        )
    return parts


def join_rows(parts: Sequence[UserRows]) -> UserRows:
    """Returns the rows of all parts, in their order."""
    if len(parts) == 1:
        return parts[0]
    histories = [np.diff(part.offsets) for part in parts]
    seen = [numbers for part in parts for numbers in _seen(part)]
    profiles: list[user_pb2.UserProfile] = [profile for part in parts for profile in part.profiles]
    expiries = [part.expires_at_ms for part in parts if part.expires_at_ms is not None]
    return UserRows(
        statuses=np.concatenate([part.statuses for part in parts]),
        profiles=profiles,
        user_versions=[version for part in parts for version in part.user_versions],
        offsets=np.concatenate(([0], np.cumsum(np.concatenate(histories)))).astype(np.int64),
        movie_numbers=np.concatenate([part.movie_numbers for part in parts]),
        ratings=np.concatenate([part.ratings for part in parts]),
        event_times_ms=np.concatenate([part.event_times_ms for part in parts]),
        num_watched=np.concatenate([part.num_watched for part in parts]),
        deleted_at_ms=np.concatenate([part.deleted_at_ms for part in parts]),
        expires_at_ms=None if len(expiries) < len(parts) else np.concatenate(expiries),
        seen_offsets=_offsets_of(seen),
        seen_numbers=np.concatenate(seen),
        seen_omitted=np.zeros(len(profiles), np.bool_),
    )
