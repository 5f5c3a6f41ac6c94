"""Asks questions of any of the servers, 16 at a time, and reads the answers alike. Knows wires; knows no process."""

import json
import subprocess
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
from marquee.v1 import model_service_pb2 as pb
from marquee.v1.model_service_pb2_grpc import ModelServiceStub

OUR_PATHS = {"rate": "/marquee.v1.ModelService/PredictRating", "top": "/marquee.v1.ModelService/TopK"}
_TOGETHER = 16
_TIMEOUT_S = 60.0

Question = Mapping[str, Any]
Answer = dict[str, Any]


def kind_of(question: Question) -> str:
    """Returns which of both kinds a question is."""
    return "rate" if "movie_id" in question else "top"


def as_json(questions: Sequence[Question]) -> list[bytes]:
    """Returns the bodies of HTTP requests."""
    return [json.dumps(question).encode() for question in questions]


def as_ours(questions: Sequence[Question]) -> list[bytes]:
    """Returns messages of our contract."""
    return [
        (_rating_request(each) if kind_of(each) == "rate" else _list_request(each)).SerializeToString()
        for each in questions
    ]


def over_http(address: str, paths: Mapping[str, str]) -> Callable[[Sequence[Question]], list[Answer]]:
    """Returns what asks a server that speaks JSON."""

    def ask(question: Question) -> Answer:
        url = f"http://{address}{paths[kind_of(question)]}"
        request = urllib.request.Request(url, json.dumps(question).encode(), {"content-type": "application/json"})
        with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as response:
            answer = json.load(response)
        assert isinstance(answer, dict)
        return answer

    return lambda questions: _at_a_time(ask, questions)


def over_grpc(address: str) -> Callable[[Sequence[Question]], list[Answer]]:
    """Returns what asks a server of our contract."""

    def ask_all(questions: Sequence[Question]) -> list[Answer]:
        with grpc.insecure_channel(address) as channel:
            stub = ModelServiceStub(channel)

            def ask(question: Question) -> Answer:
                if kind_of(question) == "rate":
                    rated = stub.PredictRating(_rating_request(question), timeout=_TIMEOUT_S)
                    return {name: getattr(rated, name) for name in ("rating", "rounded_rating", "score")}
                listed = stub.TopK(_list_request(question), timeout=_TIMEOUT_S)
                names = ("movie_id", "score", "predicted_rating")
                return {"movies": [{name: getattr(movie, name) for name in names} for movie in listed.movies]}

            return _at_a_time(ask, questions)

    return ask_all


def triton_bodies(python: Path, questions: Sequence[Question]) -> list[bytes]:
    """Returns messages of Triton's contract, which only its own environment knows."""
    return [bytes.fromhex(body) for body in _in_its_environment(python, ["bodies"], questions)]


def through_triton(python: Path, address: str, questions: Sequence[Question]) -> list[Answer]:
    """Asks Triton by its own client."""
    answers = _in_its_environment(python, ["ask", address], questions)
    assert isinstance(answers, list)
    return answers


def differences(ours: Sequence[Answer], theirs: Sequence[Answer], tolerance: float) -> list[str]:
    """Tells where answers differ: numbers by more than a tolerance, movies at all."""
    found = []
    for place, (mine, other) in enumerate(zip(ours, theirs, strict=True)):
        rows = zip(mine["movies"], other["movies"], strict=True) if "movies" in mine else [(mine, other)]
        for one, another in rows:
            for name, value in one.items():
                told = another[name]
                # So that NaN, which is within no tolerance, differs too.
                differs = told != value if isinstance(value, str) else not abs(told - value) <= tolerance
                if differs:
                    found.append(f"answer {place}: {name} is {told!r} and ours is {value!r}")
    return found


def _rating_request(question: Question) -> pb.PredictRatingRequest:
    return pb.PredictRatingRequest(user=pb.UserSelector(user_id=question["user_id"]), movie_id=question["movie_id"])


def _list_request(question: Question) -> pb.TopKRequest:
    return pb.TopKRequest(user=pb.UserSelector(user_id=question["user_id"]), k=question["k"])


def _at_a_time(ask: Callable[[Question], Answer], questions: Sequence[Question]) -> list[Answer]:
    with ThreadPoolExecutor(_TOGETHER) as pool:
        return list(pool.map(ask, questions))


def _in_its_environment(python: Path, arguments: Sequence[str], questions: Sequence[Question]) -> Any:
    command = [str(python), "-m", "benchmarks.peers.triton_client", *arguments]
    done = subprocess.run(command, input=json.dumps(list(questions)), capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{command[2]} failed:\n{done.stderr}")
    return json.loads(done.stdout)
