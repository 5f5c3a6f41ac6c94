"""What do TLS and tokens cost a call? Processor time of an empty unary call, service and caller in one process.

The kinds take turns, round after round, so that whatever else the machine does falls on all alike; the median of the
rounds counts. Writes benchmarks/results/secured_calls.json.

    python benchmarks/secured_calls.py
"""

import statistics
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import trustme
import uvloop
from grpc import aio
from marquee.client.channel import open_channel
from marquee.client.credentials import Credentials
from marquee.v1 import feature_service_pb2 as pb2

from benchmarks.record import record
from service_runtime.certificates import CertificateFiles
from service_runtime.health import Health
from service_runtime.security import make_token
from service_runtime.server import Call, Security, Server, Service

_SERVICE = pb2.DESCRIPTOR.services_by_name["FeatureService"]
_CALLS = 500
_ROUNDS = 9


class _Empty:
    """Answers each RPC with nothing."""

    def __getattr__(self, name: str) -> Any:
        async def answer(request: object, call: Call) -> pb2.GetStoreInfoResponse:
            return pb2.GetStoreInfoResponse()

        return answer


@asynccontextmanager
async def _channel(security: Security, credentials: Credentials) -> AsyncIterator[aio.Channel]:
    services = [Service(_SERVICE, _Empty())]
    async with (
        Server(services, Health([], []), listen="127.0.0.1:0", drain_timeout_s=1.0, security=security) as server,
        open_channel(server.address, credentials=credentials) as channel,
    ):
        yield channel


async def _measure(folder: Path) -> dict[str, float]:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(folder / "ca.pem")
    issued = authority.issue_cert("127.0.0.1")
    certificate, key = folder / "server.pem", folder / "server.key"
    certificate.write_bytes(b"".join(each.bytes() for each in issued.cert_chain_pems))
    issued.private_key_pem.write_to_path(key)
    token, known_as = make_token()
    tokens = folder / "tokens"
    tokens.write_text(f"caller {known_as} methods=GetStoreInfo concurrency=100 message_bytes=1000\n")
    tls, ca = CertificateFiles(certificate, key), folder / "ca.pem"
    kinds = {
        "in_the_clear": (Security(), Credentials()),
        # Without the interceptor that adds it at the caller's: what is left is the service's part.
        "token_given_by_hand": (Security(tokens_file=tokens), Credentials()),
        "token": (Security(tokens_file=tokens), Credentials(token=token)),
        "tls": (Security(tls), Credentials(True, ca)),
        "tls_and_token": (Security(tls, tokens), Credentials(True, ca, token=token)),
    }
    spent: dict[str, list[float]] = {name: [] for name in kinds}
    async with AsyncExitStack() as stack:
        calls: dict[str, Any] = {}
        metadata: dict[str, Any] = {}
        for name, kind in kinds.items():
            channel: Any = await stack.enter_async_context(_channel(*kind))
            calls[name] = channel.unary_unary("/marquee.v1.FeatureService/GetStoreInfo")
            metadata[name] = (("authorization", f"Bearer {token}"),) if name == "token_given_by_hand" else ()
        for _ in range(_ROUNDS):
            for name, call in calls.items():
                began = time.process_time()
                for _ in range(_CALLS):
                    await call(b"", metadata=metadata[name], timeout=30)
                spent[name].append((time.process_time() - began) / _CALLS * 1e6)
    return {name: round(statistics.median(each), 1) for name, each in spent.items()}


def main() -> None:
    """Measures and records."""
    with tempfile.TemporaryDirectory() as folder:
        figures = uvloop.run(_measure(Path(folder)))
    print(figures)
    print(record("secured_calls", {"cpu_us_per_call": figures, "calls": _CALLS, "rounds": _ROUNDS}))


if __name__ == "__main__":
    main()
