"""Serves by grpcio as its examples do, one call one answer, over our own contract. Needs only what we need ourselves.

    python -m benchmarks.peers.of_grpcio {threads,asyncio} ADDRESS

PEERS_FOLDER names what is served.
"""

import asyncio
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
from marquee.v1 import model_service_pb2 as pb
from marquee.v1 import model_service_pb2_grpc

from benchmarks.peers.answering import Answering

THREADS = 10
"""What grpcio's examples take."""


class Recommending(model_service_pb2_grpc.ModelServiceServicer):
    """The towers, called from a thread pool."""

    def __init__(self, answering: Answering) -> None:
        self._answering = answering

    def PredictRating(self, request: pb.PredictRatingRequest, context: Any) -> pb.PredictRatingResponse:  # noqa: N802
        """Answers one question."""
        [answer] = self._answering.rate([{"user_id": request.user.user_id, "movie_id": request.movie_id}])
        return pb.PredictRatingResponse(**answer)

    def TopK(self, request: pb.TopKRequest, context: Any) -> pb.TopKResponse:  # noqa: N802
        """Answers one question."""
        [answer] = self._answering.top([{"user_id": request.user.user_id, "k": request.k}])
        return pb.TopKResponse(movies=[pb.RankedMovie(**movie) for movie in answer["movies"]])


class RecommendingOnLoop(Recommending):
    """The same, called from an event loop."""

    async def PredictRating(self, request: pb.PredictRatingRequest, context: Any) -> pb.PredictRatingResponse:  # type: ignore[override]  # noqa: N802
        """Answers one question."""
        return super().PredictRating(request, context)

    async def TopK(self, request: pb.TopKRequest, context: Any) -> pb.TopKResponse:  # type: ignore[override]  # noqa: N802
        """Answers one question."""
        return super().TopK(request, context)


def serve_by_threads(answering: Answering, address: str) -> None:
    """Serves until the process is ended."""
    server = grpc.server(ThreadPoolExecutor(THREADS))
    model_service_pb2_grpc.add_ModelServiceServicer_to_server(Recommending(answering), server)  # type: ignore[abstract]
    server.add_insecure_port(address)
    server.start()
    server.wait_for_termination()


async def serve_by_asyncio(answering: Answering, address: str) -> None:
    """Serves until the process is ended."""
    server = grpc.aio.server()
    model_service_pb2_grpc.add_ModelServiceServicer_to_server(RecommendingOnLoop(answering), server)  # type: ignore[abstract]
    server.add_insecure_port(address)
    await server.start()
    await server.wait_for_termination()


if __name__ == "__main__":
    towers = Answering(Path(os.environ["PEERS_FOLDER"]))
    if sys.argv[1] == "threads":
        serve_by_threads(towers, sys.argv[2])
    else:
        asyncio.run(serve_by_asyncio(towers, sys.argv[2]))
