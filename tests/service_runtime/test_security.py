"""Who may call what, by tokens and certificates, over real connections."""

import asyncio
import hashlib
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import grpc.aio
import pytest
from google.protobuf.struct_pb2 import Struct
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from marquee.client.channel import open_channel, open_sync_channel
from marquee.client.credentials import Credentials
from marquee.client.errors import CallError, read_error
from structlog.testing import capture_logs

from service_runtime.certificates import CertificateFiles
from service_runtime.errors import ResourceExhausted, TooLarge
from service_runtime.metrics import Metrics
from service_runtime.security import ANYBODY, Callers, Limits, UnusableFileError, make_token, read_tokens
from service_runtime.server import Security, Server, StartError
from tests.service_runtime.echo import EchoHandlers
from tests.service_runtime.secured import SAY_BACK, SAY_ON, line, say, server_of

WEB, OLD_WEB, CANARY = "token-of-web", "old-token-of-web", "canary-token"
PEER = "ipv4:10.0.0.7:50122"


@pytest.fixture
def handlers() -> EchoHandlers:
    return EchoHandlers()


@pytest.fixture
def tokens_file(tmp_path) -> Path:
    """`web` may do anything and has two tokens, `reader` one method, `small` two small calls at a time."""
    file = tmp_path / "tokens"
    file.write_text(
        "# callers\n\n"
        + line("web", WEB)
        + line("web", OLD_WEB)
        + line("reader", "token-of-reader", "methods=SayOn")
        + line("small", "token-of-small", "concurrency=2 message_bytes=100")
    )
    return file


@pytest.fixture
async def guarded(handlers, tokens_file) -> AsyncIterator[Server]:
    """A server that asks for tokens."""
    async with server_of(handlers, Security(tokens_file=tokens_file)) as server:
        yield server


async def refused(address: str, token: str = "", payload: bytes = b"") -> CallError:
    """Returns why a call is refused."""
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await say(address, token, payload)
    return read_error(raised.value)


async def calls_arrive(handlers: EchoHandlers, number: int) -> None:
    """Waits until so many calls have reached the handlers."""
    while len(handlers.calls) < number:  # noqa: ASYNC110  the handlers tell of the first call only
        await asyncio.sleep(0.01)


async def test_a_token_opens_the_door(guarded, handlers):
    """The call goes through, by either of a caller's tokens; the handler learns his name and never the token."""
    await say(guarded.address, WEB)
    await say(guarded.address, OLD_WEB)

    assert [call.caller for call in handlers.calls] == ["web", "web"]
    assert not any(WEB in repr(call) or OLD_WEB in repr(call) for call in handlers.calls)


@pytest.mark.parametrize(
    ("metadata", "reason"),
    [
        ((), "TOKEN_MISSING"),
        ((("authorization", f"Basic {WEB}"),), "TOKEN_MISSING"),
        ((("authorization", "Bearer"),), "TOKEN_MISSING"),
        ((("authorization", f"Bearer {CANARY}"),), "TOKEN_UNKNOWN"),
        ((("authorization", f"Bearer {WEB} "),), "TOKEN_UNKNOWN"),
        ((("authorization", f"Bearer {hashlib.sha256(WEB.encode()).hexdigest()}"),), "TOKEN_UNKNOWN"),
    ],
)
async def test_without_a_known_token_nothing_is_answered(guarded, handlers, metadata, reason):
    """UNAUTHENTICATED with a reason, before the request is even parsed; nothing of the token comes back."""
    async with grpc.aio.insecure_channel(guarded.address) as channel:
        with capture_logs() as logs, pytest.raises(grpc.aio.AioRpcError) as raised:
            await channel.unary_unary(SAY_BACK)(b"\xff\xff", metadata=metadata, timeout=20)
    error = read_error(raised.value)

    assert (error.code, error.reason, error.domain) == (grpc.StatusCode.UNAUTHENTICATED, reason, "marquee")
    assert handlers.calls == []
    assert CANARY not in f"{error} {raised.value.trailing_metadata()} {logs}"


async def test_a_stream_asks_for_a_token_too(guarded):
    """As a unary call does."""
    async with open_channel(guarded.address) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await channel.unary_stream(SAY_ON)(b"").read()
    async with open_channel(guarded.address, credentials=Credentials(token=WEB)) as channel:
        replies = [reply async for reply in channel.unary_stream(SAY_ON)(b"")]

    assert read_error(raised.value).reason == "TOKEN_MISSING"
    assert len(replies) == 3


def test_a_blocking_channel_sends_the_token(tokens_file, tmp_path):
    """Trainer and scripts use it; the token lies in a file."""
    mine = tmp_path / "mine"
    mine.write_text(WEB + "\n")

    async def ask() -> tuple[bytes, int]:
        async with server_of(EchoHandlers(), Security(tokens_file=tokens_file)) as server:

            def blocking():
                with open_sync_channel(server.address, credentials=Credentials(token_file=mine)) as channel:
                    streamed = list(channel.unary_stream(SAY_ON)(b"", timeout=20))
                    return channel.unary_unary(SAY_BACK)(b"", timeout=20), len(streamed)

            return await asyncio.to_thread(blocking)

    assert asyncio.run(ask()) == (b"", 3)


async def test_a_token_may_be_for_some_methods_only(guarded):
    """PERMISSION_DENIED: he is known, and may not."""
    error = await refused(guarded.address, "token-of-reader")

    assert (error.code, error.reason) == (grpc.StatusCode.PERMISSION_DENIED, "METHOD_NOT_ALLOWED")


async def test_a_caller_has_so_many_calls_at_a_time(guarded, handlers):
    """Further ones are told when to come back; others are not concerned; a place that is left is free again."""
    handlers.gate = asyncio.Event()
    running = [asyncio.create_task(say(guarded.address, "token-of-small")) for _ in range(2)]
    await calls_arrive(handlers, 2)

    error = await refused(guarded.address, "token-of-small")
    other = asyncio.create_task(say(guarded.address, WEB))
    await calls_arrive(handlers, 3)
    handlers.gate.set()
    await asyncio.gather(*running, other)

    assert (error.code, error.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "TOO_MANY_CALLS")
    assert error.retry_after_s > 0
    assert (error.metadata["limit"], error.metadata["allowed"]) == ("concurrency", "2")
    handlers.error = ValueError("a failed call gives its place back too")
    for _ in range(3):
        assert (await refused(guarded.address, "token-of-small")).code is grpc.StatusCode.INTERNAL


async def test_a_caller_has_so_many_bytes_a_request(guarded):
    """The reason says how many, and that it is no use to try again."""
    request = Struct()
    request["long"] = "x" * 200

    error = await refused(guarded.address, "token-of-small", request.SerializeToString())

    assert (error.code, error.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "MESSAGE_TOO_LARGE")
    assert "may send 100 at most" in error.message
    assert (error.metadata["limit"], error.metadata["allowed"]) == ("message_bytes", "100")
    assert error.retry_after_s is None
    await say(guarded.address, WEB, request.SerializeToString())


async def test_health_is_open_and_reflection_is_not(guarded):
    """Probes carry no token; what there is to call is shown to those who may call."""
    async with grpc.aio.insecure_channel(guarded.address) as channel:
        status = await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest())
        asking = iter([reflection_pb2.ServerReflectionRequest(list_services="")])
        stub = reflection_pb2_grpc.ServerReflectionStub(channel)
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await stub.ServerReflectionInfo(asking).read()
        bearer = (("authorization", f"Bearer {WEB}"),)
        shown = await stub.ServerReflectionInfo(
            iter([reflection_pb2.ServerReflectionRequest(list_services="")]), metadata=bearer
        ).read()

    assert status.status == health_pb2.HealthCheckResponse.SERVING
    assert read_error(raised.value).reason == "TOKEN_MISSING"
    assert "echo.Echo" in {service.name for service in shown.list_services_response.service}


def test_tokens_are_taken_up_when_the_file_changes(tokens_file):
    """A new one is good and a removed one is not within a second; a broken file changes nothing and is told."""
    now = 0.0
    callers = Callers(tokens_file, lambda: now)
    callers.open()
    tokens_file.write_text(line("web", "new"))
    before = callers.identify(f"Bearer {WEB}", PEER).name, callers.identify("Bearer new", PEER).name

    now = 1.0
    after = callers.identify(f"Bearer {WEB}", PEER).name, callers.identify("Bearer new", PEER).name
    with capture_logs() as logs:
        tokens_file.write_text(f"web {CANARY}\n")
        now = 2.0
        broken = callers.identify("Bearer new", PEER).name
        tokens_file.unlink()
        now = 3.0
        gone = callers.identify("Bearer new", PEER).name

    assert (before, after, broken, gone) == (("web", ""), ("", "web"), "web", "web")
    assert [entry["event"] for entry in logs] == ["tokens_refused", "tokens_refused"]
    assert "line 1: must be NAME sha256:" in logs[0]["reason"]
    assert CANARY not in str(logs)


def test_a_caller_keeps_his_count_when_the_file_changes(tokens_file):
    """What he has under way counts against his new limit."""
    now = 0.0
    callers = Callers(tokens_file, lambda: now)
    callers.open()
    before = callers.identify(f"Bearer {WEB}", PEER)
    before.enter(SAY_BACK, 0)
    tokens_file.write_text(line("web", WEB, "concurrency=1"))
    now = 1.0

    with pytest.raises(ResourceExhausted, match="1 calls under way, and may have 1 at a time"):
        callers.identify(f"Bearer {WEB}", PEER).enter(SAY_BACK, 0)

    before.leave()
    callers.identify(f"Bearer {WEB}", PEER).enter(SAY_BACK, 0)
    assert callers.counts.running == {"web": 1}


def test_limits_for_all_hold_where_a_line_names_none(tokens_file):
    """Who has limits of his own keeps them."""
    callers = Callers(tokens_file, limits=Limits(max_concurrent=1, max_message_bytes=1000))
    callers.open()
    web, small = (callers.identify(f"Bearer {token}", PEER) for token in (WEB, "token-of-small"))

    for each in (web, small, small):
        each.enter(SAY_BACK, 100)

    with pytest.raises(ResourceExhausted, match="may have 1 at a time"):
        callers.identify(f"Bearer {OLD_WEB}", PEER).enter(SAY_BACK, 100)
    with pytest.raises(TooLarge, match="1001 bytes, and this caller may send 1000"):
        web.enter(SAY_BACK, 1001)
    with pytest.raises(TooLarge, match="may send 100 at most"):
        small.enter(SAY_BACK, 101)


def test_where_nobody_needs_a_token_a_caller_is_his_host():
    """All connections of a host count together, and those of another do not; who has left is not remembered."""
    callers = Callers(None, limits=Limits(max_concurrent=1))
    first = callers.identify("", "ipv4:10.0.0.7:50122")
    first.enter(SAY_BACK, 0)
    other = callers.identify("", "ipv6:%5Bfd00::8%5D:40001")
    other.enter(SAY_BACK, 0)

    with pytest.raises(ResourceExhausted):
        callers.identify("", "ipv4:10.0.0.7:50123").enter(SAY_BACK, 0)

    first.leave()
    callers.identify("", "ipv4:10.0.0.7:50124").enter(SAY_BACK, 0)
    assert callers.counts.running == {"ipv4:10.0.0.7": 1, "ipv6:%5Bfd00::8%5D": 1}
    other.leave()
    assert callers.counts.running == {"ipv4:10.0.0.7": 1}


def test_without_limits_nobody_is_told_from_others():
    """So that it costs nothing where nobody asked for it."""
    assert Callers(None).identify("", PEER) is ANYBODY


async def test_a_host_over_its_limits_is_told_so_and_counted(handlers):
    """RESOURCE_EXHAUSTED names the limit; who looks at the metrics sees how many calls were refused, by which."""
    handlers.gate = asyncio.Event()
    metrics = Metrics("echo")
    async with server_of(handlers, Security(limits=Limits(max_concurrent=1, max_message_bytes=50))) as server:
        server.tell(metrics)
        running = asyncio.create_task(say(server.address))
        await calls_arrive(handlers, 1)

        busiest = metrics.registry.get_sample_value("marquee_rpc_busiest_caller_in_flight")
        over = [await refused(server.address), await refused(server.address, payload=b"x" * 51)]
        handlers.gate.set()
        await running

    assert [(error.code, error.metadata["limit"], error.retry_after_s) for error in over] == [
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "concurrency", 0.5),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "message_bytes", None),
    ]
    assert busiest == 1
    for limit in ("concurrency", "message_bytes"):
        name = "marquee_rpc_over_caller_limit_total"
        assert metrics.registry.get_sample_value(name, {"limit": limit}) == 1
    assert metrics.registry.get_sample_value("marquee_rpc_busiest_caller_in_flight") == 0


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "names nobody"),
        ("# nobody\n", "names nobody"),
        ("web sha256:12", "line 1: must be NAME sha256:64-HEX"),
        (line("web", "a") + f"canary {CANARY}", "line 2: must be NAME"),
        (line("web", "a") + line("other", "a"), "line 2: the same token a second time"),
        (line("web", "a", "concurrency=0"), "concurrency= must be a whole number of 1 or more"),
        (line("web", "a", "message_bytes=many"), "message_bytes= must be a whole number"),
        (line("web", "a", "methods=topk"), "methods= must be names of RPCs"),
        (line("web", "a", "admin=yes"), "a right is methods=, concurrency= or message_bytes="),
        (line("web", "a", "concurrency=1 concurrency=2"), "each once"),
    ],
)
def test_mistakes_in_a_file_of_tokens_are_named(text, problem):
    """By line, and without a word of what the line holds."""
    with pytest.raises(UnusableFileError, match=problem) as raised:
        read_tokens(text, "tokens")

    assert CANARY not in str(raised.value)


async def test_a_server_does_not_start_on_files_that_it_cannot_use(handlers, tmp_path, tokens_file):
    """It says which and why, rather than let anybody in."""
    nothing = tmp_path / "nothing"
    nothing.write_text("")
    for security, problem in (
        (Security(tokens_file=nothing), "names nobody"),
        (Security(tokens_file=tmp_path / "absent"), "No such file"),
        (Security(certificates=CertificateFiles(tokens_file, tokens_file)), "not a certificate and its key in PEM"),
    ):
        with pytest.raises(StartError, match=problem):
            await server_of(handlers, security).__aenter__()


def test_the_command_makes_a_token_and_its_line(tmp_path):
    """The token is long, random, readable by its owner only; the line is what a server takes."""
    file = tmp_path / "token"
    command = [sys.executable, "-m", "service_runtime.security", "web", "concurrency=8", "--token-file", str(file)]

    made = subprocess.run(command, capture_output=True, text=True, check=True)
    again = subprocess.run(command, capture_output=True, text=True, check=False)

    token = file.read_text().strip()
    (digest, rights) = next(iter(read_tokens(made.stdout, "line").items()))
    assert digest == hashlib.sha256(token.encode()).digest()
    assert (rights.name, rights.max_concurrent) == ("web", 8)
    assert len(token) > 40
    assert token not in made.stdout + made.stderr
    assert file.stat().st_mode & 0o777 == 0o600
    assert (again.returncode, file.read_text().strip()) == (2, token)
    assert make_token() != make_token()
