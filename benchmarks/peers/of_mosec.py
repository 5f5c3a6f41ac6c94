"""Serves by Mosec: one worker process behind its Rust front, dynamic batching, JSON.

    python -m benchmarks.peers.of_mosec --address 127.0.0.1 --port PORT

PEERS_FOLDER names what is served. Both routes share the worker, as one device would be shared.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mosec import Server, Worker

from benchmarks.peers.answering import Answer, Answering

MAX_BATCH, WAIT_MS = 64, 2


class Recommending(Worker):  # type: ignore[misc]
    """The towers, behind both routes."""

    def __init__(self) -> None:
        super().__init__()
        self._answering = Answering(Path(os.environ["PEERS_FOLDER"]))

    def forward(self, data: Sequence[Any]) -> list[Answer]:
        """Answers a batch."""
        return self._answering.answer(data)


if __name__ == "__main__":
    server = Server()
    server.append_worker(
        Recommending, num=1, max_batch_size=MAX_BATCH, max_wait_time=WAIT_MS, route=["/predict", "/top"]
    )
    server.run()
