"""Serves by Triton Inference Server through nvidia-pytriton: dynamic batching, its gRPC port, on the processor.

    python -m benchmarks.peers.of_triton HTTP_PORT GRPC_PORT

PEERS_FOLDER names what is served.
"""

import os
import sys
import sysconfig
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pytriton.decorators import batch
from pytriton.model_config import DynamicBatcher, ModelConfig, Tensor
from pytriton.triton import Triton, TritonConfig

from benchmarks.peers.answering import Answering

MAX_BATCH, WAIT_US = 64, 1000
K = 10


def main() -> None:
    """Serves until it is told to stop."""
    answering = Answering(Path(os.environ["PEERS_FOLDER"]))

    @batch  # type: ignore[untyped-decorator]
    def predict(user_id: NDArray[Any], movie_id: NDArray[Any]) -> dict[str, NDArray[np.float32]]:
        answers = answering.rate(
            [
                {"user_id": user.decode(), "movie_id": movie.decode()}
                for user, movie in zip(user_id[:, 0], movie_id[:, 0], strict=True)
            ]
        )
        names = ("rating", "rounded_rating", "score")
        return {name: np.array([[each[name]] for each in answers], np.float32) for name in names}

    @batch  # type: ignore[untyped-decorator]
    def top(user_id: NDArray[Any]) -> dict[str, NDArray[Any]]:
        lists = [
            each["movies"] for each in answering.top([{"user_id": user.decode(), "k": K} for user in user_id[:, 0]])
        ]
        return {
            "movie_id": np.array([[movie["movie_id"].encode() for movie in each] for each in lists], np.bytes_),
            "score": np.array([[movie["score"] for movie in each] for each in lists], np.float32),
            "predicted_rating": np.array([[movie["predicted_rating"] for movie in each] for each in lists], np.float32),
        }

    # Triton's interpreter takes the libpython that the linker finds first: it has to be that of our standard library.
    os.environ["LD_LIBRARY_PATH"] = str(sysconfig.get_config_var("LIBDIR"))
    http_port, grpc_port = (int(each) for each in sys.argv[1:3])
    ports = TritonConfig(
        http_address="127.0.0.1",
        http_port=http_port,
        grpc_address="127.0.0.1",
        grpc_port=grpc_port,
        allow_metrics=False,
    )
    batching = ModelConfig(max_batch_size=MAX_BATCH, batcher=DynamicBatcher(max_queue_delay_microseconds=WAIT_US))
    text, number = (Tensor(name=name, dtype=np.bytes_, shape=(1,)) for name in ("user_id", "movie_id")), np.float32
    user, movie = text
    with Triton(config=ports) as triton:
        triton.bind(
            model_name="predict",
            infer_func=predict,
            inputs=[user, movie],
            outputs=[Tensor(name=name, dtype=number, shape=(1,)) for name in ("rating", "rounded_rating", "score")],
            config=batching,
        )
        triton.bind(
            model_name="top",
            infer_func=top,
            inputs=[user],
            outputs=[
                Tensor(name="movie_id", dtype=np.bytes_, shape=(K,)),
                *(Tensor(name=name, dtype=number, shape=(K,)) for name in ("score", "predicted_rating")),
            ],
            config=batching,
        )
        triton.serve()


if __name__ == "__main__":
    main()
