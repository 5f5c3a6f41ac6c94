"""Serves by LitServe: batches of up to 64, one worker, its fast queue, as many front processes as workers.

    python -m benchmarks.peers.of_litserve PORT

PEERS_FOLDER names what is served.
"""

import os
import sys
from collections.abc import Sequence
from pathlib import Path

import litserve

from benchmarks.peers.answering import Answer, Answering, Question

MAX_BATCH, WAIT_S = 64, 0.002


class Recommending(litserve.LitAPI):  # type: ignore[misc]
    """The towers; a request says by its fields which of both it wants."""

    def setup(self, device: str) -> None:
        """Loads them in the worker."""
        self._answering = Answering(Path(os.environ["PEERS_FOLDER"]))

    def decode_request(self, request: Question) -> Question:
        """Takes a question as it is."""
        return request

    def batch(self, inputs: Sequence[Question]) -> Sequence[Question]:
        """Keeps questions as they are: LitServe would make arrays of them."""
        return inputs

    def predict(self, inputs: Sequence[Question]) -> list[Answer]:
        """Answers a batch."""
        return self._answering.answer(inputs)

    def unbatch(self, output: list[Answer]) -> list[Answer]:
        """Gives each his answer."""
        return output

    def encode_response(self, output: Answer) -> Answer:
        """Gives an answer as it is."""
        return output


if __name__ == "__main__":
    api = Recommending(max_batch_size=MAX_BATCH, batch_timeout=WAIT_S)
    server = litserve.LitServer(api, accelerator="cpu", devices=1, workers_per_device=1, fast_queue=True)
    server.run(
        host="127.0.0.1",
        port=int(sys.argv[1]),
        num_api_servers=1,
        log_level="warning",
        access_log=False,
        generate_client_file=False,
    )
