"""Adds a caller's token to each of his calls. Knows metadata; knows no RPC."""

from collections.abc import Callable
from typing import Any, NamedTuple

import grpc
import grpc.aio
from marquee.client.credentials import Token


class _Unary(grpc.aio.UnaryUnaryClientInterceptor):
    def __init__(self, token: Token) -> None:
        self._token = token

    async def intercept_unary_unary(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        return await continuation(_with_token(client_call_details, self._token), request)


class _Stream(grpc.aio.UnaryStreamClientInterceptor):
    def __init__(self, token: Token) -> None:
        self._token = token

    async def intercept_unary_stream(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        return await continuation(_with_token(client_call_details, self._token), request)


def async_interceptors(token: Token) -> list[grpc.aio.ClientInterceptor]:
    """Returns what adds a token to the calls of an asyncio channel; grpc.aio takes each for one kind of call only."""
    return [_Unary(token), _Stream(token)]


def _with_token(given: Any, token: Token) -> grpc.aio.ClientCallDetails:
    metadata = grpc.aio.Metadata(*(given.metadata or ()), ("authorization", token.header))
    return grpc.aio.ClientCallDetails(given.method, given.timeout, metadata, given.credentials, given.wait_for_ready)


class _Details(NamedTuple):
    method: str
    timeout: float | None
    metadata: Any
    credentials: grpc.CallCredentials | None
    wait_for_ready: bool | None
    compression: Any


class SyncTokenCalls(grpc.UnaryUnaryClientInterceptor, grpc.UnaryStreamClientInterceptor):
    """For blocking channels."""

    def __init__(self, token: Token) -> None:
        """Stores the token."""
        self._token = token

    def intercept_unary_unary(self, continuation: Callable[..., Any], client_call_details: Any, request: Any) -> Any:
        """Sends a call with the token."""
        return continuation(self._with_token(client_call_details), request)

    def intercept_unary_stream(self, continuation: Callable[..., Any], client_call_details: Any, request: Any) -> Any:
        """Sends a call with the token."""
        return continuation(self._with_token(client_call_details), request)

    def _with_token(self, given: Any) -> Any:
        metadata = [*(given.metadata or ()), ("authorization", self._token.header)]
        return _Details(
            given.method, given.timeout, metadata, given.credentials, given.wait_for_ready, given.compression
        )
