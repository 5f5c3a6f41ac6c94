"""Makes requests as callers write them."""

import numpy as np
from google.protobuf.timestamp_pb2 import Timestamp
from marquee.v1 import feature_service_pb2 as pb2
from marquee.v1 import movie_pb2, user_pb2


def timestamp(time_ms: int) -> Timestamp:
    """Returns epoch milliseconds as a Timestamp."""
    return Timestamp(seconds=time_ms // 1000, nanos=time_ms % 1000 * 1_000_000)


def event(
    event_id: str = "e", user_id: str = "u", movie_id: str = "m0", rating: float | None = None, time_ms: int = 1000
) -> pb2.Event:
    """Returns an event; what is not given is valid."""
    return pb2.Event(
        event_id=event_id, user_id=user_id, movie_id=movie_id, rating=rating, event_time=timestamp(time_ms)
    )


def write(*events: pb2.Event) -> pb2.WriteEventsRequest:
    """Returns a WriteEvents request."""
    return pb2.WriteEventsRequest(events=events)


def upsert_movies(*movies: movie_pb2.Movie, clear_fields: tuple[str, ...] = ()) -> pb2.BatchUpsertMoviesRequest:
    """Returns a BatchUpsertMovies request."""
    upserts = [pb2.MovieUpsert(movie=movie, clear_fields=clear_fields) for movie in movies]
    return pb2.BatchUpsertMoviesRequest(movies=upserts)


def movies(num_movies: int, first: int = 0) -> pb2.BatchUpsertMoviesRequest:
    """Returns an upsert of movies m<first>, m<first + 1> and so on."""
    return upsert_movies(*(movie_pb2.Movie(movie_id=f"m{i}") for i in range(first, first + num_movies)))


def upsert_user(user_id: str = "u", clear_fields: tuple[str, ...] = (), **profile) -> pb2.BatchUpsertUsersRequest:
    """Returns a BatchUpsertUsers request for one user."""
    row = pb2.UserUpsert(user_id=user_id, profile=user_pb2.UserProfile(**profile), clear_fields=clear_fields)
    return pb2.BatchUpsertUsersRequest(users=[row])


def users(*user_ids: str, **fields) -> pb2.BatchGetUsersRequest:
    """Returns a BatchGetUsers request."""
    return pb2.BatchGetUsersRequest(user_ids=user_ids, **fields)


def import_histories(histories: dict[str, list[tuple[str, float, int]]], **fields) -> pb2.ImportHistoriesRequest:
    """Returns an ImportHistories request of (movie, rating or NaN, time) per user."""
    entries = [entry for history in histories.values() for entry in history]
    movie_ids = list(dict.fromkeys(movie_id for movie_id, _, _ in entries))
    columns = {
        "user_ids": list(histories),
        "lengths": np.array([len(history) for history in histories.values()], "<u4").tobytes(),
        "movie_ids": movie_ids,
        "movie_indices": np.array([movie_ids.index(movie_id) for movie_id, _, _ in entries], "<u4").tobytes(),
        "ratings": np.array([rating for _, rating, _ in entries], "<f4").tobytes(),
        "event_times_ms": np.array([time for _, _, time in entries], "<i8").tobytes(),
    }
    return pb2.ImportHistoriesRequest(**{**columns, **fields})
