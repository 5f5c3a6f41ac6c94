"""What tests ask of a running stack. Knows stubs and times; starts nothing."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
from google.protobuf.timestamp_pb2 import Timestamp
from marquee.client.columns import decode_user_columns
from marquee.v1 import feature_service_pb2, feature_service_pb2_grpc, model_service_pb2_grpc, movie_pb2

from trainer.dataset import Dataset
from two_tower.checkpoint import Checkpoint
from two_tower.movie_columns import MovieColumns
from two_tower.user_columns import Histories, Profiles, UserColumns

MODELS = ("marquee", "two-tower-history", "content-fc")
TIMEOUT_S = 20.0


def at(minutes: int) -> Timestamp:
    """Returns a time that lies later than all of the data set."""
    stamp = Timestamp()
    stamp.FromDatetime(datetime(2026, 1, 1, tzinfo=UTC) + timedelta(minutes=minutes))
    return stamp


@dataclass(frozen=True)
class RunningStack:
    """Stubs to the services, and what they serve.

    Attributes:
        features: A stub.
        models: Stubs by model.
        checkpoints: By model.
        data: What was published.
        feature_address: HOST:PORT of feature_service.
        metrics: HOST:PORT of the metrics of feature_service, and of the model_service of the first model, by name.
        logs: What the processes have logged.
    """

    features: feature_service_pb2_grpc.FeatureServiceStub
    models: dict[str, model_service_pb2_grpc.ModelServiceStub]
    checkpoints: dict[str, Checkpoint]
    data: Dataset
    feature_address: str
    metrics: dict[str, str]
    logs: list[Path]

    def watch(self, user_id: str, movie_id: str, minutes: int, rating: float | None = None) -> str:
        """Writes one event, which must change the user's state, and returns the user's version."""
        event = feature_service_pb2.Event(
            event_id=f"{user_id}/{movie_id}/{minutes}", user_id=user_id, movie_id=movie_id, event_time=at(minutes)
        )
        if rating is not None:
            event.rating = rating
        request = feature_service_pb2.WriteEventsRequest(events=[event])
        (result,) = self.features.WriteEvents(request, timeout=TIMEOUT_S).results
        assert result.status == feature_service_pb2.EVENT_STATUS_APPLIED
        return str(result.user_version)


def stored_movies(running: RunningStack) -> MovieColumns:
    """Reads the whole catalogue through the feature RPCs."""
    movies: list[movie_pb2.Movie] = []
    token = ""
    while True:
        page = running.features.ListMovies(feature_service_pb2.ListMoviesRequest(page_token=token), timeout=TIMEOUT_S)
        movies += page.movies
        token = page.next_page_token
        if not token:
            break
    return MovieColumns(
        [movie.movie_id for movie in movies],
        [movie.title for movie in movies],
        np.array([movie.year if movie.HasField("year") else np.nan for movie in movies], np.float32),
        [tuple(movie.genres) for movie in movies],
    )


def stored_user(running: RunningStack, user_id: str) -> UserColumns:
    """Reads one user through the feature RPCs."""
    answer = running.features.BatchGetUsers(
        feature_service_pb2.BatchGetUsersRequest(user_ids=[user_id], view=feature_service_pb2.USER_VIEW_COLUMNS),
        timeout=TIMEOUT_S,
    )
    rows = decode_user_columns(answer.columns)
    (profile,) = rows.profiles
    return UserColumns(
        [user_id],
        Profiles(
            [profile.gender if profile.HasField("gender") else None],
            np.array([profile.age if profile.HasField("age") else np.nan], np.float32),
            [profile.occupation if profile.HasField("occupation") else None],
        ),
        Histories(
            rows.offsets,
            rows.movie_numbers,
            rows.ratings,
            rows.event_times_ms,
            rows.num_watched == np.diff(rows.offsets),
        ),
    )
