"""Opens channels as every caller of ours should: retries, balancing, keepalive, limits. Knows no RPC and no message."""

import json
from collections.abc import Sequence
from importlib import resources

import grpc
import grpc.aio
from marquee.client.credentials import Credentials
from marquee.client.token_calls import SyncTokenCalls, async_interceptors

ANONYMOUS = Credentials()
# The contract's limits are computed from it; see protos/marquee/v1.
MAX_MESSAGE_BYTES = 4 * 1024 * 1024


def service_config(*, with_timeouts: bool = True) -> str:
    """Returns the gRPC service config: timeouts, retries with backoff and jitter, round_robin.

    It is a copy of protos/service_config.json, which callers in other languages load.

    Args:
        with_timeouts: Whether calls that name no timeout get one. gRPC for Python counts it by the time of day: while
            the clock is further back than when the process began, each call is DEADLINE_EXCEEDED at once (1.85). Who
            names a timeout with each call goes without.
    """
    text = resources.files("marquee.client").joinpath("service_config.json").read_text(encoding="utf-8")
    if with_timeouts:
        return text
    config = json.loads(text)
    for methods in config["methodConfig"]:
        methods.pop("timeout", None)
    return json.dumps(config)


def without_timeouts() -> list[tuple[str, int | str]]:
    """Returns the channel arguments of who names a timeout with each call, see `service_config`."""
    return [("grpc.service_config", service_config(with_timeouts=False))]


def channel_options(further: Sequence[tuple[str, int | str]] = ()) -> list[tuple[str, int | str]]:
    """Returns the channel arguments of `open_channel`, then `further`, of which the last of a name wins."""
    options: dict[str, int | str] = {
        "grpc.service_config": service_config(),
        # Servers name no config of their own by DNS; asking for one costs a lookup per channel.
        "grpc.service_config_disable_resolution": 1,
        "grpc.enable_retries": 1,
        "grpc.max_receive_message_length": MAX_MESSAGE_BYTES,
        "grpc.max_send_message_length": MAX_MESSAGE_BYTES,
        # A peer that vanished without closing is noticed after 20 s, while calls run and between them. Servers of ours
        # allow a ping every 10 s.
        "grpc.keepalive_time_ms": 12_000,
        "grpc.keepalive_timeout_ms": 8_000,
        # Of the pings by which gRPC measures a connection in use; a minute by default, in which no other one is sent.
        "grpc.http2.ping_timeout_ms": 8_000,
        "grpc.keepalive_permit_without_calls": 1,
        "grpc.http2.max_pings_without_data": 0,
        # A service that restarts is found again within a second or two, not after two minutes.
        "grpc.initial_reconnect_backoff_ms": 200,
        "grpc.max_reconnect_backoff_ms": 2000,
    }
    options.update(further)
    return list(options.items())


def open_channel(
    target: str,
    *,
    credentials: Credentials = ANONYMOUS,
    options: Sequence[tuple[str, int | str]] = (),
    interceptors: Sequence[grpc.aio.ClientInterceptor] = (),
) -> grpc.aio.Channel:
    """Opens an asyncio channel; it connects with the first call. Close it, or use it as `async with`.

    Args:
        target: host:port, or any gRPC target; of a name with several addresses all are used in turn.
        credentials: Who calls, and whom he trusts; by default nobody in particular, in the clear.
        options: Further gRPC channel arguments; they win over ours.
        interceptors: What every call of the channel goes through, for example one that traces it.

    Raises:
        CredentialsError: A file of the credentials cannot be used, or a token would go out in the clear.
    """
    token = credentials.token_for(target)
    passing = [*interceptors, *(async_interceptors(token) if token is not None else ())]
    secure = credentials.for_channel()
    if secure is None:
        return grpc.aio.insecure_channel(target, options=channel_options(options), interceptors=passing)
    return grpc.aio.secure_channel(target, secure, options=channel_options(options), interceptors=passing)


def open_sync_channel(
    target: str, *, credentials: Credentials = ANONYMOUS, options: Sequence[tuple[str, int | str]] = ()
) -> grpc.Channel:
    """Opens a blocking channel, otherwise as `open_channel`."""
    token = credentials.token_for(target)
    secure = credentials.for_channel()
    if secure is None:
        channel = grpc.insecure_channel(target, options=channel_options(options))
    else:
        channel = grpc.secure_channel(target, secure, options=channel_options(options))
    return channel if token is None else grpc.intercept_channel(channel, SyncTokenCalls(token))
