"""Stand-in services over real gRPC that keep what they are sent, and answer by simple rules of their own."""

from collections.abc import Iterator
from concurrent import futures
from contextlib import contextmanager

import grpc
import numpy as np
from marquee.v1 import (
    feature_service_pb2,
    feature_service_pb2_grpc,
    model_service_pb2,
    model_service_pb2_grpc,
    movie_pb2,
    user_pb2,
)

Entry = tuple[str, float, int]
"""Movie id, stars and time of one entry."""


class RecordingFeatureService(feature_service_pb2_grpc.FeatureServiceServicer):
    """Merges what it is sent as the real service does, in dictionaries; counts calls."""

    def __init__(self, num_failures: int = 0) -> None:
        """Refuses the first `num_failures` imports."""
        self.movies: dict[str, movie_pb2.Movie] = {}
        self.profiles: dict[str, user_pb2.UserProfile] = {}
        self.histories: dict[str, set[Entry]] = {}
        self.not_for_evaluation = False
        self.num_calls = 0
        self._num_failures = num_failures

    def BatchUpsertMovies(  # noqa: N802
        self, request: feature_service_pb2.BatchUpsertMoviesRequest, context: grpc.ServicerContext
    ) -> feature_service_pb2.BatchUpsertMoviesResponse:
        self.num_calls += 1
        assert 1 <= len(request.movies) <= 500
        for upsert in request.movies:
            self.movies.setdefault(upsert.movie.movie_id, upsert.movie).CopyFrom(upsert.movie)
        numbers = {movie_id: number for number, movie_id in enumerate(self.movies)}
        return feature_service_pb2.BatchUpsertMoviesResponse(
            catalogue_numbers=[numbers[upsert.movie.movie_id] for upsert in request.movies]
        )

    def BatchUpsertUsers(  # noqa: N802
        self, request: feature_service_pb2.BatchUpsertUsersRequest, context: grpc.ServicerContext
    ) -> feature_service_pb2.BatchUpsertUsersResponse:
        self.num_calls += 1
        assert 1 <= len(request.users) <= 1000
        self.profiles.update({upsert.user_id: upsert.profile for upsert in request.users})
        return feature_service_pb2.BatchUpsertUsersResponse()

    def ImportHistories(  # noqa: N802
        self, request: feature_service_pb2.ImportHistoriesRequest, context: grpc.ServicerContext
    ) -> feature_service_pb2.ImportHistoriesResponse:
        self.num_calls += 1
        if self._num_failures:
            self._num_failures -= 1
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "not today")
        self.not_for_evaluation |= request.not_for_evaluation
        lengths = np.frombuffer(request.lengths, "<u4")
        entries = list(
            zip(
                [request.movie_ids[index] for index in np.frombuffer(request.movie_indices, "<u4")],
                np.frombuffer(request.ratings, "<f4").tolist(),
                np.frombuffer(request.event_times_ms, "<i8").tolist(),
                strict=True,
            )
        )
        assert lengths.sum() == len(entries)
        applied = 0
        for user_id, stop, length in zip(request.user_ids, np.cumsum(lengths), lengths, strict=True):
            history = self.histories.setdefault(user_id, set())
            before = len(history)
            history.update(entries[stop - length : stop])
            applied += len(history) - before
        return feature_service_pb2.ImportHistoriesResponse(num_applied=applied, num_unchanged=len(entries) - applied)


class ThreeStarModelService(model_service_pb2_grpc.ModelServiceServicer):
    """Rates every movie 3.25 and recommends "Movie 1", "Movie 2", ...; knows no movie called "none"."""

    def PredictRating(  # noqa: N802
        self, request: model_service_pb2.PredictRatingRequest, context: grpc.ServicerContext
    ) -> model_service_pb2.PredictRatingResponse:
        if request.movie_id == "none":
            context.abort(grpc.StatusCode.NOT_FOUND, "there is no movie 'none'")
        return model_service_pb2.PredictRatingResponse(
            rating=3.25,
            rounded_rating=3,
            source=model_service_pb2.ANSWER_SOURCE_PERSONAL,
            cold=request.movie_id == "2",
            model_version="v7",
            stddev=0.75 if request.movie_id == "1" else None,
        )

    def TopK(  # noqa: N802
        self, request: model_service_pb2.TopKRequest, context: grpc.ServicerContext
    ) -> model_service_pb2.TopKResponse:
        if request.diversity == 1:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "that is too much of it")
        allowed = list(request.filter.allow.movie_ids) or [str(number) for number in range(1, request.k + 1)]
        return model_service_pb2.TopKResponse(
            movies=[
                model_service_pb2.RankedMovie(
                    movie_id=movie_id,
                    score=1.5,
                    predicted_rating=3.25,
                    movie=movie_pb2.Movie(
                        movie_id=movie_id, title=f"Movie {movie_id}", year=1999, genres=request.filter.genres_any
                    ),
                    explanation=model_service_pb2.Explanation(
                        reasons=[model_service_pb2.Reason(movie_id="77", share=0.25)] * request.explain,
                        unexplained=1 - 0.25 * request.explain,
                    ),
                )
                for movie_id in allowed
            ],
            source=model_service_pb2.ANSWER_SOURCE_FOLDED_IN,
            model_version="v7",
        )


def recording_features(num_failures: int = 0) -> RecordingFeatureService:
    """Returns a feature_service that serves what publishing needs and nothing else."""
    return RecordingFeatureService(num_failures)  # type: ignore[abstract]


def three_star_model() -> ThreeStarModelService:
    """Returns a model_service that serves what the commands need and nothing else."""
    return ThreeStarModelService()  # type: ignore[abstract]


@contextmanager
def served(
    features: RecordingFeatureService | None = None, model: ThreeStarModelService | None = None
) -> Iterator[str]:
    """Serves on a free loopback port and gives host:port."""
    server = grpc.server(futures.ThreadPoolExecutor(2))
    if features is not None:
        feature_service_pb2_grpc.add_FeatureServiceServicer_to_server(features, server)
    if model is not None:
        model_service_pb2_grpc.add_ModelServiceServicer_to_server(model, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(None).wait()
