"""Asks model_service what a command wants to show. Knows its RPCs; prints nothing."""

from collections.abc import Sequence
from dataclasses import dataclass

import grpc
from marquee.client.errors import read_error
from marquee.v1 import model_service_pb2, model_service_pb2_grpc, movie_pb2

from trainer.errors import TrainerError

CALL_TIMEOUT_S = 10.0


class AskError(TrainerError):
    """model_service refused, or could not be reached."""


@dataclass(frozen=True, slots=True)
class PredictedRating:
    """What one user would rate one movie, and the movie as the catalogue has it."""

    movie: movie_pb2.Movie
    answer: model_service_pb2.PredictRatingResponse


def predict_ratings(channel: grpc.Channel, user_id: str, movie_ids: Sequence[str]) -> list[PredictedRating]:
    """Asks for the rating of each movie.

    Raises:
        AskError: model_service refused, or could not be reached.
    """
    service = model_service_pb2_grpc.ModelServiceStub(channel)
    user = model_service_pb2.UserSelector(user_id=user_id)
    try:
        answers = [
            service.PredictRating(
                model_service_pb2.PredictRatingRequest(user=user, movie_id=movie_id), timeout=CALL_TIMEOUT_S
            )
            for movie_id in movie_ids
        ]
        # Ratings come without titles; a list that allows only these movies brings them from the same service.
        wanted = list(dict.fromkeys(movie_ids))
        listed = service.TopK(
            model_service_pb2.TopKRequest(
                user=user,
                k=len(wanted),
                filter=model_service_pb2.MovieFilter(allow=model_service_pb2.MovieList(movie_ids=wanted)),
                exclude_seen=False,
                view=movie_pb2.MOVIE_VIEW_MOVIE,
            ),
            timeout=CALL_TIMEOUT_S,
        )
    except grpc.RpcError as error:
        raise AskError(f"model_service: {read_error(error)}") from error
    movies = {ranked.movie_id: ranked.movie for ranked in listed.movies}
    return [
        PredictedRating(movies.get(movie_id, movie_pb2.Movie(movie_id=movie_id)), answer)
        for movie_id, answer in zip(movie_ids, answers, strict=True)
    ]


def best_movies(
    channel: grpc.Channel, user_id: str, k: int, genres: Sequence[str] = (), diversity: float = 0.0, explain: int = 0
) -> model_service_pb2.TopKResponse:
    """Asks for the k best movies that the user has not watched.

    Raises:
        AskError: model_service refused, or could not be reached.
    """
    service = model_service_pb2_grpc.ModelServiceStub(channel)
    request = model_service_pb2.TopKRequest(
        user=model_service_pb2.UserSelector(user_id=user_id),
        k=k,
        filter=model_service_pb2.MovieFilter(genres_any=genres),
        view=movie_pb2.MOVIE_VIEW_MOVIE,
        diversity=diversity,
        explain=explain,
    )
    try:
        return service.TopK(request, timeout=CALL_TIMEOUT_S)
    except grpc.RpcError as error:
        raise AskError(f"model_service: {read_error(error)}") from error
