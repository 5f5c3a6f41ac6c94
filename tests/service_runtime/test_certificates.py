"""TLS on the services' ports: who trusts whom, and certificates that are renewed."""

import os
import socket
from pathlib import Path

import grpc
import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from marquee.client.channel import open_channel
from marquee.client.credentials import Credentials
from structlog.testing import capture_logs

from service_runtime.certificates import CertificateFiles
from service_runtime.server import Security, StartError
from tests.service_runtime.echo import EchoHandlers
from tests.service_runtime.secured import SAY_BACK, Authority, line, say, server_of

WEB = "token-of-web"


@pytest.fixture
def handlers() -> EchoHandlers:
    return EchoHandlers()


@pytest.fixture
def tokens_file(tmp_path) -> Path:
    file = tmp_path / "tokens"
    file.write_text(line("web", WEB))
    return file


@pytest.fixture
def authority(tmp_path) -> Authority:
    return Authority(tmp_path)


async def test_tls_serves_who_trusts_it(handlers, authority, tokens_file):
    """Tokens travel encrypted; who speaks in the clear, or trusts somebody else, gets no answer."""
    files = CertificateFiles(*authority.issue("server"))
    stranger = Authority(tokens_file.parent, "stranger")
    async with server_of(handlers, Security(files, tokens_file)) as server:
        await say(server.address, credentials=Credentials(tls=True, ca_file=authority.file, token=WEB))
        for credentials in (Credentials(token=WEB), Credentials(tls=True, ca_file=stranger.file, token=WEB)):
            with pytest.raises(grpc.aio.AioRpcError) as raised:
                await say(server.address, credentials=credentials)
            assert raised.value.code() is grpc.StatusCode.UNAVAILABLE

    assert [call.caller for call in handlers.calls] == ["web"]


async def test_mutual_tls_asks_callers_for_a_certificate(handlers, authority, tmp_path):
    """Of the right authority; its own is not enough for one who has none, or another's, or an expired one."""
    stranger = Authority(tmp_path, "stranger")
    security = Security(CertificateFiles(*authority.issue("server"), client_authority=authority.file))
    good, expired = authority.issue("client"), authority.issue("expired", days=-1)
    async with server_of(handlers, security) as server:
        await say(server.address, credentials=Credentials(True, authority.file, *good))
        for pair in ((None, None), stranger.issue("other"), expired):
            with pytest.raises(grpc.aio.AioRpcError) as raised:
                await say(server.address, credentials=Credentials(True, authority.file, *pair))
            assert raised.value.code() is grpc.StatusCode.UNAVAILABLE

    assert len(handlers.calls) == 1


async def test_a_renewed_certificate_is_taken_up_and_no_connection_is_dropped(handlers, authority, tmp_path):
    """Old connections go on, new ones see the new certificate; half a renewal changes nothing."""
    certificate, key = authority.issue("server")
    old_text = certificate.read_text()
    async with (
        server_of(handlers, Security(CertificateFiles(certificate, key))) as server,
        open_channel(server.address, credentials=Credentials(True, authority.file)) as standing,
    ):
        call = standing.unary_unary(SAY_BACK)
        await call(b"")
        newcomer = Authority(tmp_path, "newcomer")
        trusting = Credentials(True, newcomer.file)

        other, other_key = newcomer.issue("renewed")
        os.replace(other, certificate)
        with capture_logs() as logs:
            await say(server.address, credentials=Credentials(True, authority.file))
            await say(server.address, credentials=Credentials(True, authority.file))
        os.replace(other_key, key)
        await say(server.address, credentials=trusting)
        await call(b"")
        with pytest.raises(grpc.aio.AioRpcError):
            await say(server.address, credentials=Credentials(True, authority.file))

    assert [entry["event"] for entry in logs] == ["certificate_refused"]
    assert "is not the key of" in logs[0]["reason"]
    assert certificate.read_text() != old_text
    assert len(handlers.calls) == 5


async def test_an_expired_certificate_is_not_trusted_until_it_is_renewed(handlers, authority):
    """Callers refuse it; once it is renewed they are answered, without a restart."""
    files = CertificateFiles(*authority.issue("server", days=-1))
    trusting = Credentials(True, authority.file)
    async with server_of(handlers, Security(files)) as server:
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await say(server.address, credentials=trusting)
        authority.issue("server")
        await say(server.address, credentials=trusting)

    assert raised.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_probes_may_have_a_port_in_the_clear(handlers, authority, tokens_file):
    """It answers health, as the service's own port does, and nothing else."""
    security = Security(CertificateFiles(*authority.issue("server")), tokens_file, "127.0.0.1:0")
    async with (
        server_of(handlers, security) as server,
        grpc.aio.insecure_channel(server.health_address) as channel,
    ):
        status = await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(service="echo.Echo"))
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await channel.unary_unary(SAY_BACK)(b"", metadata=(("authorization", f"Bearer {WEB}"),))

    assert status.status == health_pb2.HealthCheckResponse.SERVING
    assert raised.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_a_taken_port_for_probes_is_a_clear_error(handlers):
    """As of the service's own."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"

        with pytest.raises(StartError, match=address):
            await server_of(handlers, Security(health_listen=address)).__aenter__()
