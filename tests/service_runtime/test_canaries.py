"""The scanner that watches the whole test run finds what it is there to find."""

import subprocess
import sys
from pathlib import Path

import grpc
import grpc.aio
import pytest
from marquee.client.channel import open_channel
from marquee.client.credentials import Credentials
from marquee.v1 import feature_service_pb2 as pb2
from marquee.v1 import feature_service_pb2_grpc, movie_pb2

from service_runtime.errors import FailedPrecondition
from service_runtime.health import Health
from service_runtime.server import Call, Security, Server, Service
from tests.canaries import SCANNER, Scanner
from tests.service_runtime.secured import line

ROOT = Path(__file__).parents[2]
USER, TITLE, TOKEN = "canary-user-17", "A canary of a title", "canary-token-17"

LEAKY_TEST = f'''
"""Logs what nobody should."""
import structlog
from tests.canaries import SCANNER

def test_a_leak():
    """Passes by itself."""
    SCANNER.plant("{USER}")
    structlog.get_logger().info("user_read", user="{USER}")

def test_no_leak():
    """Logs something else."""
    structlog.get_logger().info("user_read", user="somebody")
'''


class Leaky:
    """Tells in its errors whom it was asked about; all other RPCs are left out."""

    def __getattr__(self, name: str):
        async def answer(request, call: Call):
            raise FailedPrecondition(f"asked about {request}")

        return answer


@pytest.mark.parametrize(
    ("method", "request_message", "planted"),
    [
        ("DeleteUser", pb2.DeleteUserRequest(user_id=USER), USER),
        ("BatchGetUsers", pb2.BatchGetUsersRequest(user_ids=["ann", USER]), USER),
        ("WriteEvents", pb2.WriteEventsRequest(events=[pb2.Event(user_id=USER)]), USER),
        (
            "BatchUpsertMovies",
            pb2.BatchUpsertMoviesRequest(movies=[pb2.MovieUpsert(movie=movie_pb2.Movie(title=TITLE))]),
            TITLE,
        ),
    ],
)
async def test_a_leak_in_an_error_is_found(method, request_message, planted):
    """Of a user's id or a title, wherever it stands in a request."""
    service = Service(pb2.DESCRIPTOR.services_by_name["FeatureService"], Leaky())
    async with (
        Server([service], Health([], []), listen="127.0.0.1:0", drain_timeout_s=1.0) as server,
        open_channel(server.address) as channel,
    ):
        with pytest.raises(grpc.aio.AioRpcError):
            await getattr(feature_service_pb2_grpc.FeatureServiceStub(channel), method)(request_message)

    found, SCANNER.leaks = SCANNER.leaks, []
    # Ids of other tests that the planted one happens to contain are found too.
    assert [
        leak for leak in found if leak.startswith(f"{planted!r} in an error of /marquee.v1.FeatureService/{method}")
    ]


async def test_a_token_is_planted_by_its_call(tmp_path):
    """Whether it is known or not: a token that comes back is found."""
    tokens = tmp_path / "tokens"
    tokens.write_text(line("web", TOKEN))
    service = Service(pb2.DESCRIPTOR.services_by_name["FeatureService"], Leaky())
    security = Security(tokens_file=tokens)
    async with Server(
        [service], Health([], []), listen="127.0.0.1:0", drain_timeout_s=1.0, security=security
    ) as server:
        for token in (TOKEN, "unknown-token-18"):
            async with open_channel(server.address, credentials=Credentials(token=token)) as channel:
                with pytest.raises(grpc.aio.AioRpcError):
                    await feature_service_pb2_grpc.FeatureServiceStub(channel).GetStoreInfo(pb2.GetStoreInfoRequest())

    assert {TOKEN, "unknown-token-18"} <= SCANNER.planted.keys()


def test_a_leak_in_a_log_fails_its_test(tmp_path):
    """And no other."""
    file = tmp_path / "test_leaky.py"
    file.write_text(LEAKY_TEST)

    ran = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-q", "-p", "tests.canaries", "-p", "no:cacheprovider"),
            *("--rootdir", str(tmp_path), "-c", "/dev/null", str(file)),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )

    assert ran.returncode == 1
    assert f"'{USER}' in a log line" in ran.stdout
    assert "1 error" in ran.stdout
    assert "2 passed" in ran.stdout


def test_what_is_no_secret_is_not_looked_for():
    """Short words stand in logs for other reasons; an id with a digit or of some length does not."""
    scanner = Scanner()

    for value in ("u", "Heat", "server", "user-1", "somebody else"):
        scanner.plant(value)

    assert list(scanner.planted) == ["user-1", "somebody else"]
