"""The server translates, reports and drains."""

import asyncio
import socket
import time
from collections.abc import AsyncIterator

import grpc
import grpc.aio
import pytest
from google.protobuf.struct_pb2 import Struct
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from service_runtime.errors import (
    DeadlineExceeded,
    FailedPrecondition,
    InvalidRequest,
    NotFound,
    ResourceExhausted,
    ServiceError,
    Unavailable,
    Violation,
)
from service_runtime.health import Health
from service_runtime.server import Server, Service, StartError, snake_case
from tests.service_runtime.echo import ECHO, EchoHandlers


@pytest.fixture
def handlers() -> EchoHandlers:
    return EchoHandlers()


@pytest.fixture
def health() -> Health:
    return Health(["echo.Echo"], ["storage"])


@pytest.fixture
async def server(handlers: EchoHandlers, health: Health) -> AsyncIterator[Server]:
    async with Server([Service(ECHO, handlers)], health, listen="127.0.0.1:0", drain_timeout_s=2.0) as server:
        yield server


@pytest.fixture
async def channel(server) -> AsyncIterator[grpc.aio.Channel]:
    async with grpc.aio.insecure_channel(server.address) as channel:
        yield channel


async def say_back(channel, payload: bytes = b"", **kwargs):
    return await channel.unary_unary("/echo.Echo/SayBack")(payload, **kwargs)


async def failure(channel: grpc.aio.Channel, payload: bytes = b"", **kwargs):
    """Returns the error of a call that must fail and its details by type name."""
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await say_back(channel, payload, **kwargs)
    metadata = dict(raised.value.trailing_metadata())
    status = status_pb2.Status.FromString(metadata["grpc-status-details-bin"])
    details: dict[str, list] = {}
    for packed in status.details:
        name = packed.TypeName().rpartition(".")[2]
        message = getattr(error_details_pb2, name)()
        packed.Unpack(message)
        details.setdefault(name, []).append(message)
    return raised.value, details


async def test_a_reply_goes_back(channel):
    """What the handler returns is what the caller gets."""
    request = Struct()
    request["film"] = "Alien"

    reply = await say_back(channel, request.SerializeToString())

    assert Struct.FromString(reply) == request


async def test_a_call_knows_its_deadline_and_request_id(channel, handlers):
    """The handler sees how long the caller waits and by what id he knows the call."""
    await say_back(channel, timeout=5, metadata=(("x-request-id", "abc-1"),))
    await say_back(channel)

    assert handlers.calls[0].request_id == "abc-1"
    assert handlers.calls[0].deadline is not None
    assert handlers.calls[0].method == "/echo.Echo/SayBack"
    assert len(handlers.calls[1].request_id) == 32
    assert handlers.calls[1].deadline is None


@pytest.mark.parametrize(
    ("error", "code", "detail"),
    [
        (InvalidRequest([Violation("k", "must be 1 to 500")]), grpc.StatusCode.INVALID_ARGUMENT, "BadRequest"),
        (NotFound("movie", ["m1", "m2"]), grpc.StatusCode.NOT_FOUND, "ResourceInfo"),
        (FailedPrecondition("no", reason="FOREIGN_EPOCH"), grpc.StatusCode.FAILED_PRECONDITION, None),
        (ResourceExhausted("full", retry_after_s=0.5), grpc.StatusCode.RESOURCE_EXHAUSTED, "RetryInfo"),
        (Unavailable("gone", retry_after_s=1.5), grpc.StatusCode.UNAVAILABLE, "RetryInfo"),
        (DeadlineExceeded(), grpc.StatusCode.DEADLINE_EXCEEDED, None),
    ],
)
async def test_each_error_has_its_status_and_details(channel, handlers, error: ServiceError, code, detail):
    """Every class of the tree arrives with its status, its reason and its details."""
    handlers.error = error

    raised, details = await failure(channel)

    assert raised.code() is code
    assert raised.details() == error.message
    assert details["ErrorInfo"][0].reason == error.reason
    assert details["ErrorInfo"][0].domain == "marquee"
    assert set(details) == {"ErrorInfo"} | ({detail} if detail else set())


async def test_all_violations_arrive(channel, handlers):
    """A caller sees everything that is wrong at once."""
    handlers.error = InvalidRequest([Violation(f"f[{i}]", "must not be empty") for i in range(20)])

    _, details = await failure(channel)

    assert [v.field for v in details["BadRequest"][0].field_violations] == [f"f[{i}]" for i in range(20)]


@pytest.mark.parametrize(
    "error",
    [
        InvalidRequest([Violation(f"user_ids[{i}]", "𝄞" * 300) for i in range(1000)]),
        NotFound("movie", [f"{i:0128d}" for i in range(1000)]),
    ],
)
async def test_details_stay_below_the_trailer_limit(channel, handlers, error):
    """A thousand mistakes still arrive as an error that says how many more there are."""
    handlers.error = error

    raised, details = await failure(channel)

    assert raised.code().value[0] == error.code
    listed = details.get("ResourceInfo") or details["BadRequest"][0].field_violations
    assert "more" in listed[-1].description


async def test_an_unlisted_exception_tells_the_caller_nothing(channel, handlers):
    """INTERNAL holds a request id and no word of the exception."""
    handlers.error = ValueError("secret")

    raised, details = await failure(channel, metadata=(("x-request-id", "r-7"),))

    assert raised.code() is grpc.StatusCode.INTERNAL
    assert raised.details() == "internal error; request id r-7"
    assert "secret" not in str(details)


async def test_bytes_that_are_no_request_are_invalid(channel):
    """Garbage is the caller's mistake, not ours."""
    raised, _ = await failure(channel, b"\xff\xff\xff")

    assert raised.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert raised.details().startswith("not a ")


async def test_health_follows_the_dependencies(health, channel):
    """Check and Watch, by name and overall, are NOT_SERVING until every dependency was found."""
    stub = health_pb2_grpc.HealthStub(channel)
    status = health_pb2.HealthCheckResponse
    watch = stub.Watch(health_pb2.HealthCheckRequest(service="echo.Echo"))
    before = await watch.read()
    overall = await stub.Check(health_pb2.HealthCheckRequest())

    await health.found("storage")

    after = await watch.read()
    assert (before.status, overall.status, after.status) == (status.NOT_SERVING, status.NOT_SERVING, status.SERVING)
    assert (await stub.Check(health_pb2.HealthCheckRequest())).status == status.SERVING
    await health.lost("storage", "it broke")
    assert (await watch.read()).status == status.NOT_SERVING
    assert health.describe() == "storage: it broke"
    watch.cancel()


async def test_reflection_names_the_services(channel):
    """A caller without our protos can ask what is here."""
    stub = reflection_pb2_grpc.ServerReflectionStub(channel)
    call = stub.ServerReflectionInfo(iter([reflection_pb2.ServerReflectionRequest(list_services="")]))

    reply = await call.read()

    assert {service.name for service in reply.list_services_response.service} == {
        "echo.Echo",
        "grpc.health.v1.Health",
        "grpc.reflection.v1alpha.ServerReflection",
    }


async def test_leaving_waits_for_running_calls_and_not_for_watches(handlers):
    """A drain answers what runs, refuses what comes, and a health watch does not hold it up."""
    handlers.gate = asyncio.Event()
    health = Health(["echo.Echo"], [])
    server = Server([Service(ECHO, handlers)], health, listen="127.0.0.1:0", drain_timeout_s=30.0)
    await server.__aenter__()
    async with grpc.aio.insecure_channel(server.address) as channel:
        watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
        running = asyncio.ensure_future(say_back(channel, b""))
        await handlers.entered.wait()

        leaving = asyncio.create_task(server.__aexit__())

        assert (await watch.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
        assert not leaving.done()
        handlers.gate.set()
        assert await running == b""
        await asyncio.wait_for(leaving, 5)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await say_back(channel, timeout=1)
        assert refused.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_a_burst_before_leaving_is_answered_or_sent_elsewhere(handlers):
    """Nobody whose call had arrived is told CANCELLED, which he would take for his own doing and not repeat."""
    server = Server([Service(ECHO, handlers)], Health([], []), listen="127.0.0.1:0", drain_timeout_s=5.0)
    await server.__aenter__()
    async with grpc.aio.insecure_channel(server.address) as channel:
        burst = [asyncio.ensure_future(say_back(channel, b"", timeout=10)) for _ in range(300)]
        await handlers.entered.wait()

        await server.__aexit__()

        answers = await asyncio.gather(*burst, return_exceptions=True)
        codes = {each.code() for each in answers if isinstance(each, grpc.aio.AioRpcError)}
        assert codes <= {grpc.StatusCode.UNAVAILABLE}
        assert b"" in answers


async def test_a_server_that_gives_notice_answers_until_it_is_over(handlers):
    """Health says that it leaves; who was sent here by a proxy that has not looked yet is answered, then refused."""
    health = Health(["echo.Echo"], [])
    server = Server([Service(ECHO, handlers)], health, listen="127.0.0.1:0", drain_timeout_s=30.0, leave_notice_s=1.0)
    await server.__aenter__()
    async with grpc.aio.insecure_channel(server.address) as channel:
        watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
        leaving = asyncio.create_task(server.__aexit__())
        told = (await watch.read()).status

        answer = await say_back(channel, b"")

        assert (told, answer, leaving.done()) == (health_pb2.HealthCheckResponse.NOT_SERVING, b"", False)
        await asyncio.wait_for(leaving, 20)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await say_back(channel, timeout=1)
        assert refused.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_a_drain_ends_after_its_timeout(handlers):
    """A call that never ends does not keep the process."""
    handlers.gate = asyncio.Event()
    server = Server([Service(ECHO, handlers)], Health([], []), listen="127.0.0.1:0", drain_timeout_s=0.2)
    await server.__aenter__()
    async with grpc.aio.insecure_channel(server.address) as channel:
        running = asyncio.ensure_future(say_back(channel))
        await handlers.entered.wait()

        await asyncio.wait_for(server.__aexit__(), 5)

        with pytest.raises((grpc.aio.AioRpcError, asyncio.CancelledError)):
            await running


async def test_a_taken_port_is_a_clear_error(handlers):
    """Two servers never share a port by accident."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        listen = f"127.0.0.1:{taken.getsockname()[1]}"

        with pytest.raises(StartError, match=listen):
            await Server([], Health([], []), listen=listen, drain_timeout_s=0).__aenter__()


async def test_a_missing_handler_is_found_at_start():
    """A service that lacks an RPC does not start."""
    with pytest.raises(TypeError, match="say_back"):
        await Server([Service(ECHO, object())], Health([], []), listen="127.0.0.1:0", drain_timeout_s=0).__aenter__()


def test_handlers_are_named_in_snake_case():
    """The rule that maps RPCs to methods."""
    assert [snake_case(name) for name in ("TopK", "BatchGetUsers", "PredictRating")] == [
        "top_k",
        "batch_get_users",
        "predict_rating",
    ]


def say_on(channel, payload: bytes = b""):
    return channel.unary_stream("/echo.Echo/SayOn")(payload)


async def stream_failure(stream) -> error_details_pb2.ErrorInfo:
    """Reads a stream that must fail and returns why."""

    async def read_all():
        while await stream.read() is not grpc.aio.EOF:
            pass

    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await read_all()
    status = status_pb2.Status.FromString(dict(raised.value.trailing_metadata())["grpc-status-details-bin"])
    info = error_details_pb2.ErrorInfo()
    status.details[0].Unpack(info)
    return info


async def test_a_stream_of_replies_goes_back(channel):
    """All of them, in order, and then the end."""
    request = Struct()
    request["film"] = "Alien"

    replies = [reply async for reply in say_on(channel, request.SerializeToString())]

    assert [Struct.FromString(reply) for reply in replies] == [request] * 3


async def test_a_stream_fails_as_a_call_does(channel, handlers):
    """What was said before arrives; the reason follows."""
    handlers.error = Unavailable("the film broke", reason="FILM_BROKEN", retry_after_s=1.0)

    assert (await stream_failure(say_on(channel))).reason == "FILM_BROKEN"
    assert (await stream_failure(say_on(channel, b"\xff\xff"))).reason == "INVALID_REQUEST"


async def test_a_stream_ends_when_the_server_leaves(handlers, health):
    """Draining does not wait for what never ends by itself."""
    handlers.gate = asyncio.Event()
    async with Server([Service(ECHO, handlers)], health, listen="127.0.0.1:0", drain_timeout_s=30.0) as server:
        channel = grpc.aio.insecure_channel(server.address)
        stream = say_on(channel)
        await stream.read()
        failing = asyncio.create_task(stream_failure(stream))
        started = time.monotonic()

    assert (await failing).reason == "SHUTTING_DOWN"
    assert time.monotonic() - started < 10
    await channel.close()


async def test_a_handler_is_left_when_its_caller_goes(channel, handlers):
    """A stream that nobody reads any more is closed."""
    handlers.gate = asyncio.Event()
    stream = say_on(channel)
    await stream.read()

    stream.cancel()

    async with asyncio.timeout(5):
        await handlers.left.wait()


async def test_a_reader_that_stalls_is_cut_off(channel, handlers, monkeypatch):
    """What waits for him stays within one window; he learns why when he reads on."""
    monkeypatch.setattr("service_runtime.behaviours._STALLED_AFTER_S", 0.3)
    handlers.gate = asyncio.Event()
    request = Struct()
    request["long"] = "x" * 100_000
    stream = say_on(channel, request.SerializeToString())
    await stream.read()

    async with asyncio.timeout(10):
        await handlers.left.wait()

    assert (await stream_failure(stream)).reason == "READER_STALLED"
