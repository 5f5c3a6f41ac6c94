"""Channels retry, and errors become readable."""

import json
from pathlib import Path

import grpc
import grpc.aio
import pytest
from google.protobuf import any_pb2
from google.rpc import error_details_pb2, status_pb2
from marquee.client.channel import open_channel, open_sync_channel, service_config
from marquee.client.errors import Violation, read_error
from marquee.v1 import feature_service_pb2 as pb2
from marquee.v1 import feature_service_pb2_grpc as pb2_grpc

PROTOS = Path(__file__).parents[2] / "protos"


class Flaky(pb2_grpc.FeatureServiceServicer):
    """Is unavailable for the first calls."""

    def __init__(self, num_failures: int):
        self.num_failures = num_failures
        self.num_calls = 0

    async def GetStoreInfo(self, request, context):  # noqa: N802  gRPC's name
        self.num_calls += 1
        if self.num_calls <= self.num_failures:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "not yet")
        return pb2.GetStoreInfoResponse(num_movies=7)

    async def DeleteUser(self, request, context):  # noqa: N802  gRPC's name
        status = status_pb2.Status(code=3, message="user_id: must not be empty (and 1 more)")
        for detail in (
            error_details_pb2.ErrorInfo(reason="INVALID_REQUEST", domain="marquee", metadata={"request_id": "r1"}),
            error_details_pb2.BadRequest(
                field_violations=[
                    error_details_pb2.BadRequest.FieldViolation(field="user_id", description="must not be empty"),
                    error_details_pb2.BadRequest.FieldViolation(field="b", description="too long"),
                ]
            ),
        ):
            packed = any_pb2.Any()
            packed.Pack(detail)
            status.details.append(packed)
        trailers = (("grpc-status-details-bin", status.SerializeToString()),)
        await context.abort(grpc.StatusCode.INVALID_ARGUMENT, status.message, trailers)


@pytest.fixture
async def flaky():
    servicer = Flaky(num_failures=2)
    server = grpc.aio.server()
    pb2_grpc.add_FeatureServiceServicer_to_server(servicer, server)
    servicer.address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    await server.start()
    yield servicer
    await server.stop(None)


def test_the_service_config_is_the_contracts():
    """The copy that the package carries is the file that other languages load, and it is JSON."""
    assert service_config() == (PROTOS / "service_config.json").read_text(encoding="utf-8")
    assert json.loads(service_config())["loadBalancingConfig"] == [{"round_robin": {}}]


def test_the_service_config_names_rpcs_that_exist():
    """A renamed RPC does not silently lose its timeout."""
    for config in json.loads(service_config())["methodConfig"]:
        for name in config["name"]:
            module = "feature_service" if "Feature" in name["service"] else "model_service"
            descriptor = __import__(f"marquee.v1.{module}_pb2", fromlist=["DESCRIPTOR"]).DESCRIPTOR
            service = descriptor.services_by_name[name["service"].rpartition(".")[2]]
            assert service.full_name == name["service"]
            assert "method" not in name or name["method"] in service.methods_by_name


async def test_an_unavailable_service_is_asked_again(flaky):
    """Two failures do not reach the caller."""
    async with open_channel(flaky.address) as channel:
        reply = await pb2_grpc.FeatureServiceStub(channel).GetStoreInfo(pb2.GetStoreInfoRequest())

    assert reply.num_movies == 7
    assert flaky.num_calls == 3


async def test_an_error_reads_well(flaky):
    """Reason, violations and request id of a failure arrive as one exception."""
    async with open_channel(flaky.address) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await pb2_grpc.FeatureServiceStub(channel).DeleteUser(pb2.DeleteUserRequest())

    error = read_error(raised.value)
    assert (error.code, error.reason, error.request_id) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST", "r1")
    assert error.violations == [Violation("user_id", "must not be empty"), Violation("b", "too long")]
    assert "  b: too long" in str(error)


def test_an_error_of_the_transport_reads_well():
    """A service that is not there is an error without a reason."""
    with open_sync_channel("127.0.0.1:1") as channel, pytest.raises(grpc.RpcError) as raised:
        pb2_grpc.FeatureServiceStub(channel).GetStoreInfo(pb2.GetStoreInfoRequest(), timeout=0.5)

    error = read_error(raised.value)
    assert error.code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)
    assert (error.reason, error.domain) == ("", "")


def test_who_names_timeouts_gets_none():
    """Retries and balancing are as in the contract; no call has a timeout that it did not ask for."""
    whole, without = json.loads(service_config()), json.loads(service_config(with_timeouts=False))

    for methods in whole["methodConfig"]:
        methods.pop("timeout", None)

    assert without == whole
    assert "timeout" in service_config()
