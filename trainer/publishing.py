"""Sends features to feature_service: movies, profiles, histories. Knows its RPCs; knows no checkpoint and no split.

Everything sent is merged idempotently, so whoever was interrupted starts again from the beginning: what the store has
already it compares and does not write, which docs/decisions/0023 prefers to a note of how far the sender had come.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import grpc
import numpy as np
from marquee.client.columns import import_requests
from marquee.client.errors import read_error
from marquee.v1 import feature_service_pb2, feature_service_pb2_grpc, movie_pb2, user_pb2

from trainer.call_pipeline import pipelined
from trainer.dataset import Dataset, Interactions
from trainer.errors import TrainerError
from trainer.fits import Progress, silent
from trainer.histories import HistoryLayout

MAX_MOVIES_A_CALL = 500
MAX_USERS_A_CALL = 1000
CALL_TIMEOUT_S = 60.0
# One is made, one travels, one is computed and one is in Redis: further ones would only wait.
CALLS_IN_FLIGHT = 4
_MAX_TITLE_BYTES = 512


class PublishError(TrainerError):
    """feature_service refused, or could not be reached."""


@dataclass(frozen=True, slots=True)
class Published:
    """What was sent.

    Attributes:
        num_movies: Movies.
        num_profiles: Users with a profile.
        num_histories: Users with a history.
        num_entries: Entries of their histories.
        num_applied: Those that changed the store: it had them not yet, and they are within the newest that it keeps.
        numbers_equal_rows: Whether each movie's catalogue number is its row in the data set, as in an empty store.
            If not, events of the same moment stand in another order there than in the trainer's evaluation.
    """

    num_movies: int
    num_profiles: int
    num_histories: int
    num_entries: int
    num_applied: int
    numbers_equal_rows: bool


def publish(
    channel: grpc.Channel,
    data: Dataset,
    rows: Interactions,
    *,
    not_for_evaluation: bool = False,
    progress: Progress = silent,
) -> Published:
    """Sends all movies, all profiles and the histories that the rows make.

    Args:
        channel: To feature_service.
        data: Movies and users.
        rows: Whatever is to stand in histories and seen sets, and nothing else.
        not_for_evaluation: Marks the store as holding rows that evaluations hold out.
        progress: Told after each call.

    Raises:
        PublishError: feature_service refused, or could not be reached.
    """
    service = feature_service_pb2_grpc.FeatureServiceStub(channel)
    profiles = [row for row in range(len(data.user_ids)) if _has_profile(data, row)]
    total = len(data.movies) + len(profiles) + len(rows)
    try:
        numbers_equal_rows = _send_movies(service, data, progress, total)
        _send_profiles(service, data, profiles, progress, total)
        num_applied = _send_histories(service, data, rows, not_for_evaluation, progress, total)
    except grpc.RpcError as error:
        raise PublishError(f"feature_service: {read_error(error)}") from error
    return Published(
        len(data.movies), len(profiles), len(np.unique(rows.user_rows)), len(rows), num_applied, numbers_equal_rows
    )


def _send_movies(
    service: feature_service_pb2_grpc.FeatureServiceStub, data: Dataset, progress: Progress, total: int
) -> bool:
    equal = True
    known = data.scale
    scale = None if known is None else feature_service_pb2.RatingScale(lowest=known.low, highest=known.high)
    for batch in _batches(range(len(data.movies)), MAX_MOVIES_A_CALL):
        request = feature_service_pb2.BatchUpsertMoviesRequest(
            movies=[feature_service_pb2.MovieUpsert(movie=_movie(data, row)) for row in batch], rating_scale=scale
        )
        response = service.BatchUpsertMovies(request, timeout=CALL_TIMEOUT_S)
        equal &= list(response.catalogue_numbers) == list(batch)
        progress(batch[-1] + 1, total, "movies")
    return equal


def _send_profiles(
    service: feature_service_pb2_grpc.FeatureServiceStub,
    data: Dataset,
    profiles: list[int],
    progress: Progress,
    total: int,
) -> None:
    done = len(data.movies)
    requests = (
        feature_service_pb2.BatchUpsertUsersRequest(
            users=[
                feature_service_pb2.UserUpsert(user_id=data.user_ids[row], profile=_profile(data, row)) for row in batch
            ]
        )
        for batch in _batches(profiles, MAX_USERS_A_CALL)
    )
    sent = pipelined(service.BatchUpsertUsers, requests, num_in_flight=CALLS_IN_FLIGHT, timeout_s=CALL_TIMEOUT_S)
    for request, _ in sent:
        done += len(request.users)
        progress(done, total, "profiles")


def _send_histories(
    service: feature_service_pb2_grpc.FeatureServiceStub,
    data: Dataset,
    rows: Interactions,
    not_for_evaluation: bool,
    progress: Progress,
    total: int,
) -> int:
    done, applied = total - len(rows), 0
    users = np.unique(rows.user_rows)
    histories = HistoryLayout(rows, len(data.user_ids), window=len(rows)).stored(users)
    requests = import_requests(
        [data.user_ids[row] for row in users],
        histories.offsets,
        data.movies.movie_ids,
        histories.movie_numbers,
        histories.ratings,
        histories.event_times_ms,
        not_for_evaluation=not_for_evaluation,
    )
    sent = pipelined(service.ImportHistories, requests, num_in_flight=CALLS_IN_FLIGHT, timeout_s=CALL_TIMEOUT_S)
    for _, response in sent:
        applied += response.num_applied
        done += response.num_applied + response.num_unchanged
        progress(done, total, "histories")
    return applied


def _movie(data: Dataset, row: int) -> movie_pb2.Movie:
    movies = data.movies
    year = movies.years[row]
    return movie_pb2.Movie(
        movie_id=movies.movie_ids[row],
        # The whole title is kept where it fits; a checkpoint does not read it.
        title=movies.titles[row].encode()[:_MAX_TITLE_BYTES].decode(errors="ignore"),
        year=None if np.isnan(year) else int(year),
        genres=movies.genres[row],
        bags={name: movie_pb2.MovieBag(values=bag[row]) for name, bag in movies.bags.items()},
        removed=None if movies.available is None else not movies.available[row],
    )


def _profile(data: Dataset, row: int) -> user_pb2.UserProfile:
    age = data.profiles.ages[row]
    return user_pb2.UserProfile(
        gender=data.profiles.genders[row],
        age=None if np.isnan(age) else round(float(age)),
        occupation=data.profiles.occupations[row],
        zip=data.zips[row],
    )


def _has_profile(data: Dataset, row: int) -> bool:
    profiles = data.profiles
    known = profiles.genders[row] or profiles.occupations[row] or data.zips[row]
    return bool(known) or not np.isnan(profiles.ages[row])


def _batches(rows: range | list[int], size: int) -> Iterator[range | list[int]]:
    for start in range(0, len(rows), size):
        yield rows[start : start + size]
