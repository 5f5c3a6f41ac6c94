"""What is fuzzed: services as processes over a real Redis. Starts feature_service alone; makes no request up."""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import grpc
from google.protobuf.descriptor import ServiceDescriptor
from marquee.client.channel import open_sync_channel
from marquee.v1 import feature_service_pb2, feature_service_pb2_grpc, movie_pb2

from deploy.local.processes import ServiceProcess, StackError, free_address
from tests.feature_service import messages as make
from tests.fuzz.known_values import KnownValues, gather

FEATURES = feature_service_pb2.DESCRIPTOR.services_by_name["FeatureService"]
START_TIMEOUT_S = 120.0
_TIMEOUT_S = 60.0
NUM_SPARED = 1
"""So many users and movies, the first ones, are named by no made-up request: what is right of them stays right."""


@dataclass(frozen=True)
class FuzzedStack:
    """A running stack.

    Attributes:
        channels: To the port of each service; an answer is an answer, none is asked for again.
        processes: What has to stay alive.
        known: Asks what there is now.
        check: Asks something known and raises AssertionError unless the answer is right.
    """

    channels: dict[ServiceDescriptor, grpc.Channel]
    processes: Sequence[ServiceProcess]
    known: Callable[[], KnownValues]
    check: Callable[[], None]

    def logged(self, request_id: str) -> str:
        """Returns the traceback that a service logged for a request, empty if there is none."""
        for process in self.processes:
            for line in process.log.read_text(errors="replace").splitlines():
                if request_id in line and line.startswith("{"):
                    return str(json.loads(line).get("exception", ""))
        return ""

    def dead(self) -> list[str]:
        """Returns the ends of the logs of those that ended."""
        ended = []
        for process in self.processes:
            try:
                process.raise_if_ended()
            except StackError as error:
                ended.append(str(error))
        return ended


LONGER_THAN_FUZZING_S = "1000000"
"""What is asked of a channel that asks nothing again, as its connection ends of age, is not answered."""


@contextmanager
def features_alone(folder: Path, module: str = "feature_service") -> Iterator[FuzzedStack]:
    """Runs feature_service, or a module that stands for it, with a toy catalogue."""
    users, movies = [f"u{number}" for number in range(20)], [f"m{number}" for number in range(30)]
    genres = ["Comedy", "Drama"]
    with feature_service(folder, module) as process, open_unrepeated(process.address) as channel:
        stub = feature_service_pb2_grpc.FeatureServiceStub(channel)
        rows = [movie_pb2.Movie(movie_id=movie, genres=genres[row % 2 :]) for row, movie in enumerate(movies)]
        stub.BatchUpsertMovies(make.upsert_movies(*rows), timeout=_TIMEOUT_S)
        histories = {user: [(movie, 4.0, 1000 + row) for row, movie in enumerate(movies[:5])] for user in users}
        stub.ImportHistories(make.import_histories(histories), timeout=_TIMEOUT_S)
        known = partial(gather, stub, None, users[NUM_SPARED:], movies[NUM_SPARED:])
        yield FuzzedStack({FEATURES: channel}, [process], known, store_check(stub, users[0]))


@contextmanager
def feature_service(folder: Path, module: str) -> Iterator[ServiceProcess]:
    """Runs feature_service, or a module that stands for it, on a Redis of its own."""
    address = free_address()
    settings = {
        "FEATURE_LISTEN": address,
        "FEATURE_REDIS_URL": "embedded",
        "FEATURE_DATA_DIR": str(folder / "redis"),
        "FEATURE_MAX_CONNECTION_AGE_S": LONGER_THAN_FUZZING_S,
    }
    with ServiceProcess(module, address, settings, folder / "feature_service.log") as process:
        process.wait_until_serving(START_TIMEOUT_S)
        yield process


def open_unrepeated(address: str) -> grpc.Channel:
    """Opens a channel that asks nothing again: an answer is an answer."""
    return open_sync_channel(address, options=[("grpc.enable_retries", 0)])


def store_check(features: feature_service_pb2_grpc.FeatureServiceStub, user_id: str) -> Callable[[], None]:
    """Returns what raises AssertionError unless a user is still what he is now."""
    request = feature_service_pb2.BatchGetUsersRequest(user_ids=[user_id])

    def read() -> tuple[object, ...]:
        (user,) = features.BatchGetUsers(request, timeout=_TIMEOUT_S).users
        return user.profile.SerializeToString(deterministic=True), [entry.movie_id for entry in user.history]

    expected = read()
    assert expected[1], "the spared user has a history"

    def check() -> None:
        assert read() == expected, f"user {user_id} is no longer what he was"

    return check
