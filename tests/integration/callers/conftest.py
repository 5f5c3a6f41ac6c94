"""A ModelService of three movies with known answers."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from marquee.v1 import model_service_pb2 as pb
from marquee.v1 import model_service_pb2_grpc as pb_grpc
from marquee.v1.movie_pb2 import Movie

from service_runtime.errors import InvalidRequest, NotFound, ServiceError, Unavailable, Violation, to_status

SERVICE = "marquee.v1.ModelService"
TITLES = {"1": "Toy Story", "2": "Heat", "3": "Clueless"}


@dataclass
class ThreeMovies(pb_grpc.ModelServiceServicer):
    """Rates every movie by its own number of stars. "sleeper" is answered too late, "flaky" only when asked again."""

    address: str = ""
    attempts: dict[str, int] = field(default_factory=dict)

    async def PredictRating(  # noqa: N802
        self,
        request: pb.PredictRatingRequest,
        context: grpc.aio.ServicerContext[pb.PredictRatingRequest, pb.PredictRatingResponse],
    ) -> pb.PredictRatingResponse:
        user_id = request.user.user_id
        self.attempts[user_id] = self.attempts.get(user_id, 0) + 1
        if user_id == "sleeper":
            await asyncio.sleep(30)
        if user_id == "flaky" and self.attempts[user_id] == 1:
            await _refuse(context, Unavailable("warming up", retry_after_s=0.25, reason="NOT_READY"))
        if user_id == "down":
            await _refuse(context, Unavailable("no checkpoint yet", retry_after_s=0.25, reason="NOT_READY"))
        if request.movie_id not in TITLES:
            await _refuse(context, NotFound("movie", [request.movie_id], reason="MOVIE_NOT_FOUND"))
        return pb.PredictRatingResponse(rating=float(request.movie_id), model_version="v1")

    async def TopK(  # noqa: N802
        self, request: pb.TopKRequest, context: grpc.aio.ServicerContext[pb.TopKRequest, pb.TopKResponse]
    ) -> pb.TopKResponse:
        violations = [
            Violation("filter.genres_any", f"{genre!r} is no genre of this catalogue; it has Comedy, Drama")
            for genre in request.filter.genres_any
            if genre not in ("Comedy", "Drama")
        ]
        if not 1 <= request.k <= 500:
            violations.append(Violation("k", f"must be 1 to 500, is {request.k}"))
        if violations:
            await _refuse(context, InvalidRequest(violations))
        best = sorted(TITLES, reverse=True)[: request.k]
        return pb.TopKResponse(
            movies=[
                pb.RankedMovie(
                    movie_id=movie_id,
                    score=float(movie_id),
                    predicted_rating=float(movie_id) if movie_id != "1" else None,
                    movie=Movie(movie_id=movie_id, title=TITLES[movie_id], year=1995),
                )
                for movie_id in best
            ],
            source=pb.ANSWER_SOURCE_PERSONAL,
            model_version="v1",
        )


async def _refuse(context: grpc.aio.ServicerContext[Any, Any], error: ServiceError) -> None:
    status = to_status(error, "request-1")
    trailer = (("grpc-status-details-bin", status.SerializeToString()),)
    code = next(code for code in grpc.StatusCode if code.value[0] == status.code)
    await context.abort(code, status.message, trailer)


@pytest.fixture
async def three_movies() -> AsyncIterator[ThreeMovies]:
    """Serves the three movies on a free port of this machine, with health and reflection as the services have them."""
    service = ThreeMovies()  # type: ignore[abstract]  # the callers here use two of the five methods
    server = grpc.aio.server()
    pb_grpc.add_ModelServiceServicer_to_server(service, server)
    standing = health.aio.HealthServicer()
    await standing.set(SERVICE, health_pb2.HealthCheckResponse.SERVING)
    health_pb2_grpc.add_HealthServicer_to_server(standing, server)
    reflection.enable_server_reflection([SERVICE, health.SERVICE_NAME, reflection.SERVICE_NAME], server)
    service.address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    await server.start()
    yield service
    await server.stop(grace=0)
