"""Lays pages of the event log out for callers. Knows log entries and messages; knows no Redis."""

from collections.abc import Iterable

import numpy as np
from google.protobuf.timestamp_pb2 import Timestamp
from marquee.v1 import feature_service_pb2 as pb2
from numpy.typing import NDArray

from feature_service.catalogue import Mirror
from feature_service.event_log import LogPage, position_token
from feature_service.value_format import ENTRY


def export_page(page: LogPage, mirror: Mirror) -> pb2.ExportEventsResponse:
    """Returns a page with external ids."""
    rows = [entry for entry in page.entries if entry.event]
    entries = np.frombuffer(b"".join(row.event for row in rows), ENTRY)
    users, user_indices = _distinct(row.user_id for row in rows)
    movies, movie_indices = _distinct(mirror.movies[number].movie_id for number in entries["number"].tolist())
    return pb2.ExportEventsResponse(
        events=pb2.ExportedEvents(
            user_ids=users,
            user_indices=user_indices.tobytes(),
            movie_ids=movies,
            movie_indices=movie_indices.tobytes(),
            ratings=entries["rating"].tobytes(),
            event_times_ms=entries["time_ms"].tobytes(),
            event_hashes=entries["hash"].tobytes(),
        ),
        deleted_users=[
            pb2.DeletedUser(user_digest=entry.digest, deleted_at=_timestamp(entry.deleted_at_ms))
            for entry in page.entries
            if entry.digest
        ],
        next_position=position_token(page.epoch, page.positions),
        num_behind=page.num_behind,
        gap=page.gap,
    )


def _distinct(values: Iterable[str]) -> tuple[list[str], NDArray[np.uint32]]:
    place_of: dict[str, int] = {}
    places = [place_of.setdefault(value, len(place_of)) for value in values]
    return list(place_of), np.array(places, "<u4")


def _timestamp(time_ms: int) -> Timestamp:
    return Timestamp(seconds=time_ms // 1000, nanos=time_ms % 1000 * 1_000_000)
