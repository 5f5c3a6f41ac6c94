"""Speaks Triton's contract, in the environment that has it: questions as JSON in, bodies or answers as JSON out.

python -m benchmarks.peers.triton_client bodies | ask ADDRESS
"""

import json
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from tritonclient import grpc as triton

_TOGETHER = 16


def _inputs(question: Mapping[str, Any]) -> list[Any]:
    inputs = []
    for name in ("user_id", "movie_id"):
        if name in question:
            given = triton.InferInput(name, [1, 1], "BYTES")
            given.set_data_from_numpy(np.array([[question[name].encode()]], np.object_))
            inputs.append(given)
    return inputs


def _body(question: Mapping[str, Any]) -> bytes:
    request = triton.service_pb2.ModelInferRequest(model_name="predict" if "movie_id" in question else "top")
    for given in _inputs(question):
        request.inputs.append(given._get_tensor())
        request.raw_input_contents.append(given._get_content())
    body = request.SerializeToString()
    assert isinstance(body, bytes)
    return body


def _ask(client: Any, question: Mapping[str, Any]) -> dict[str, Any]:
    if "movie_id" in question:
        rated = client.infer("predict", _inputs(question))
        return {name: float(rated.as_numpy(name)[0, 0]) for name in ("rating", "rounded_rating", "score")}
    listed = client.infer("top", _inputs(question))
    columns = [listed.as_numpy(name)[0].tolist() for name in ("movie_id", "score", "predicted_rating")]
    return {
        "movies": [
            {"movie_id": movie_id.decode(), "score": score, "predicted_rating": rating}
            for movie_id, score, rating in zip(*columns, strict=True)
        ]
    }


if __name__ == "__main__":
    questions = json.load(sys.stdin)
    if sys.argv[1] == "bodies":
        print(json.dumps([_body(question).hex() for question in questions]))
    else:
        asked = triton.InferenceServerClient(sys.argv[2])
        with ThreadPoolExecutor(_TOGETHER) as pool:
            print(json.dumps(list(pool.map(lambda question: _ask(asked, question), questions))))
