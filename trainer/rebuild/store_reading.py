"""Reads what a rebuild needs of feature_service: the event log, the catalogue, profiles. Knows its RPCs; no file."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC
from typing import Any

import grpc
import numpy as np
from marquee.client.columns import decode_user_columns
from marquee.client.errors import read_error
from marquee.v1 import feature_service_pb2 as pb2
from marquee.v1 import feature_service_pb2_grpc, movie_pb2, user_pb2
from numpy.typing import NDArray

from trainer.errors import TrainerError
from trainer.fits import Progress, silent
from trainer.store_snapshots.events import Events
from two_tower.movie_columns import MovieColumns
from two_tower.user_columns import Profiles

CALL_TIMEOUT_S = 60.0
USERS_A_CALL = 1000
_OTHER_LOG = ("FOREIGN_EPOCH", "POSITION_AHEAD")


class StoreError(TrainerError):
    """feature_service refused, or could not be reached."""


class UnconnectedError(TrainerError):
    """The event log does not go on where the snapshot ends; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class Exported:
    """What a log held.

    Attributes:
        user_ids: Users of the events.
        movie_ids: Movies of the events.
        events: Users and movies by position in these.
        deleted: When users were last deleted, epoch milliseconds by `user_digest`.
        position: Up to where the log was read.
        gap: Whether something was missing on the way.
    """

    user_ids: list[str]
    movie_ids: list[str]
    events: Events
    deleted: dict[str, int]
    position: str
    gap: bool


@dataclass(frozen=True, slots=True)
class StoredUsers:
    """What the store says of some users, in the order in which it was asked.

    Attributes:
        profiles: Unknown where it has none.
        zips: None where it has none.
        deleted_at_ms: When each was last deleted, 0 if never. int64 [U]
        is_found: Whether the store has each. bool [U]
        histories: What their histories hold now, by position of the user and catalogue number; only if asked for.
    """

    profiles: Profiles
    zips: list[str | None]
    deleted_at_ms: NDArray[np.int64]
    is_found: NDArray[np.bool_]
    histories: Events


@dataclass(slots=True)
class _Numbered:
    """Gives ids positions in the order in which they are met."""

    position_of: dict[str, int] = field(default_factory=dict)

    def positions(self, ids: Sequence[str]) -> NDArray[np.int64]:
        """Returns the position of each id."""
        place_of = self.position_of
        return np.array([place_of.setdefault(each, len(place_of)) for each in ids] or [0], np.int64)


class StoreReader:
    """One feature_service."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._service = feature_service_pb2_grpc.FeatureServiceStub(channel)

    def info(self) -> pb2.GetStoreInfoResponse:
        """Returns what the store says of itself.

        Raises:
            StoreError: It cannot be had.
        """
        answer: pb2.GetStoreInfoResponse = self._call("GetStoreInfo", pb2.GetStoreInfoRequest())
        return answer

    def export(self, position: str, progress: Progress = silent) -> Exported:
        """Reads the log from a position to where its end was when the reading began, or a little further.

        Raises:
            StoreError: It cannot be read.
            UnconnectedError: The position is of another store, or of a later state of this one.
        """
        users, movies = _Numbered(), _Numbered()
        parts: list[Events] = []
        deleted: dict[str, int] = {}
        gap, num_read, total = False, 0, -1
        while True:
            page = self._call("ExportEvents", pb2.ExportEventsRequest(position=position))
            position, gap = page.next_position, gap or page.gap
            parts.append(_events_of(page.events, users, movies))
            for each in page.deleted_users:
                moment_ms = round(each.deleted_at.ToDatetime(UTC).timestamp() * 1000)
                deleted[each.user_digest] = max(moment_ms, deleted.get(each.user_digest, 0))
            num_here = len(parts[-1]) + len(page.deleted_users)
            num_read += num_here
            if total < 0:
                total = num_here + page.num_behind
            progress(num_read, max(total, 1), "reading events")
            # Under writes that never end the log has no end either; what came since is for the next time.
            if page.num_behind == 0 or num_read >= total:
                break
        return Exported(list(users.position_of), list(movies.position_of), Events.joined(parts), deleted, position, gap)

    def movies(self) -> MovieColumns:
        """Reads the catalogue, removed movies too.

        Raises:
            StoreError: It cannot be read.
        """
        found: list[movie_pb2.Movie] = []
        token = ""
        while True:
            page = self._call("ListMovies", pb2.ListMoviesRequest(page_token=token))
            found += page.movies
            token = page.next_page_token
            if not token:
                break
        if [movie.catalogue_number for movie in found] != list(range(len(found))):
            raise StoreError("feature_service lists movies whose catalogue numbers have gaps")
        bags = list(dict.fromkeys(name for movie in found for name in sorted(movie.bags)))
        return MovieColumns(
            [movie.movie_id for movie in found],
            [movie.title for movie in found],
            np.array([movie.year if movie.HasField("year") else np.nan for movie in found], np.float32),
            [tuple(movie.genres) for movie in found],
            {name: [tuple(movie.bags[name].values) if name in movie.bags else () for movie in found] for name in bags},
            np.array([not movie.removed for movie in found], np.bool_),
        )

    def users(self, user_ids: Sequence[str], *, with_histories: bool, progress: Progress = silent) -> StoredUsers:
        """Reads profiles and deletions, and what histories still hold if that is wanted.

        Raises:
            StoreError: They cannot be read.
        """
        profiles: list[user_pb2.UserProfile] = []
        deleted, found, histories = [np.zeros(0, np.int64)], [np.zeros(0, np.bool_)], [Events.none()]
        for start in range(0, len(user_ids), USERS_A_CALL):
            request = pb2.BatchGetUsersRequest(
                user_ids=user_ids[start : start + USERS_A_CALL],
                view=pb2.USER_VIEW_COLUMNS,
                history_limit=None if with_histories else 0,
            )
            rows = decode_user_columns(self._call("BatchGetUsers", request).columns)
            profiles += rows.profiles
            deleted.append(rows.deleted_at_ms)
            found.append(rows.statuses == user_pb2.USER_STATUS_FOUND)
            owners = start + np.repeat(np.arange(len(rows)), np.diff(rows.offsets))
            histories.append(
                Events(
                    owners,
                    rows.movie_numbers.astype(np.int64),
                    rows.event_times_ms,
                    np.zeros(len(owners), np.uint64),
                    rows.ratings,
                )
            )
            progress(start + len(rows), len(user_ids), "reading users")
        return StoredUsers(
            Profiles(
                [each.gender if each.HasField("gender") else None for each in profiles],
                np.array([each.age if each.HasField("age") else np.nan for each in profiles], np.float32),
                [each.occupation if each.HasField("occupation") else None for each in profiles],
            ),
            [each.zip if each.HasField("zip") else None for each in profiles],
            np.concatenate(deleted),
            np.concatenate(found),
            Events.joined(histories),
        )

    def register(self, name: str, position: str) -> None:
        """Lets go of the log up to a position, and holds what comes after.

        Raises:
            StoreError: feature_service refused.
        """
        self._call("RegisterExport", pb2.RegisterExportRequest(name=name, position=position))

    def _call(self, rpc: str, request: Any) -> Any:
        try:
            return getattr(self._service, rpc)(request, timeout=CALL_TIMEOUT_S)
        except grpc.RpcError as error:
            told = read_error(error)
            if told.reason in _OTHER_LOG:
                raise UnconnectedError(f"feature_service: {told.message}") from error
            raise StoreError(f"feature_service: {told}") from error


def _events_of(told: pb2.ExportedEvents, users: _Numbered, movies: _Numbered) -> Events:
    user_rows, movie_rows = users.positions(told.user_ids), movies.positions(told.movie_ids)
    return Events(
        user_rows[np.frombuffer(told.user_indices, "<u4")],
        movie_rows[np.frombuffer(told.movie_indices, "<u4")],
        np.frombuffer(told.event_times_ms, "<i8").astype(np.int64),
        np.frombuffer(told.event_hashes, "<u8").astype(np.uint64),
        np.frombuffer(told.ratings, "<f4").astype(np.float32),
    )
