"""Reads users and movies from feature_service. Knows its RPCs and their limits; knows no tensor and no batch."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import grpc
import grpc.aio
import numpy as np
from marquee.client.columns import decode_user_columns
from marquee.client.errors import read_error
from marquee.v1 import feature_service_pb2, feature_service_pb2_grpc

from model_service.stored_user import StoredUser, stored_users
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
    """Some users and the catalogue whose numbers they use.

    Attributes:
        users: In the order in which they were asked for.
        catalogue_id: Whose numbers.
        catalogue_version: As of the read.
    """

    users: Sequence[StoredUser]
    catalogue_id: str
    catalogue_version: int

    def num_movies_named(self) -> int:
        """Returns a size of the catalogue that has all numbers of the users."""
        return max((user.num_movies for user in self.users), default=0)


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
        users = [user for read in reads for user in read.users]
        return UsersRead(users, reads[0].catalogue_id, version)

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
        rows = decode_user_columns(reply.columns)
        users = stored_users(rows)
        if rows.seen_omitted is not None and rows.seen_omitted.any():
            again = np.flatnonzero(rows.seen_omitted).tolist()
            if len(again) == len(user_ids):
                raise RuntimeError("feature_service leaves out the seen movies of every user it was asked for")
            rest = await self._read_part([user_ids[row] for row in again], history_limit, with_seen, deadline)
            if rest.catalogue_id != reply.catalogue_id:
                raise catalogue_replaced()
            for row, user in zip(again, rest.users, strict=True):
                users[row] = user
        return UsersRead(users, reply.catalogue_id, reply.catalogue_version)


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
