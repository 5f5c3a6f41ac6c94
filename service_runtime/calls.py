"""One call of an RPC: what its handler may know of it, and how it ends when it fails. Knows no RPC by name."""

import itertools
import re
import secrets
import time
from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import NoReturn

import grpc
import grpc.aio
import structlog
from google.protobuf.message import DecodeError, Message
from google.rpc import code_pb2, status_pb2

from service_runtime.errors import InvalidRequest, ServiceError, Violation, to_status
from service_runtime.security import Caller, Callers

_log = structlog.get_logger(__name__)
NOTES: ContextVar[dict[str, float] | None] = ContextVar("notes", default=None)
"""The notes of the call that a context belongs to, for who works on it elsewhere: `member.context.get(NOTES)`."""

# Unlike any other process's, and unlike each other: random bytes for each would cost as much as reading the call.
_REQUEST_ID_PREFIX = secrets.token_hex(10)
_REQUEST_NUMBERS = itertools.count(1)
_REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,64}")
_STATUS_BY_CODE = {status.value[0]: status for status in grpc.StatusCode}


@dataclass(frozen=True, slots=True)
class Call:
    """What a handler may know of a call beside its request.

    Attributes:
        method: Full name, for example "/marquee.v1.FeatureService/WriteEvents".
        deadline: The point of `time.monotonic` at which the caller stops waiting; None if he never does.
        request_id: The caller's x-request-id, or one made here.
        metadata: Text metadata of the call but for its token; of repeated keys the last.
        peer: Address of the caller as gRPC writes it.
        caller: Name of the caller, by his token; empty if he needs none.
        notes: Numbers that the handler wants to be read beside a slow call, by name.
    """

    method: str
    deadline: float | None
    request_id: str
    metadata: Mapping[str, str] = field(default_factory=dict)
    peer: str = ""
    caller: str = ""
    notes: dict[str, float] = field(default_factory=dict, compare=False)

    def remaining_s(self, now: float) -> float | None:
        """Returns the time left at `now` (`time.monotonic`), None without a deadline."""
        return None if self.deadline is None else max(0.0, self.deadline - now)


def read_call(path: str, context: grpc.aio.ServicerContext[bytes, bytes], callers: Callers) -> tuple[Call, Caller]:
    """Returns what gRPC tells of a call, and who makes it. His token goes no further."""
    metadata = {key: value for key, value in context.invocation_metadata() or () if isinstance(value, str)}
    request_id = metadata.get("x-request-id", "")
    if not request_id or not _REQUEST_ID.fullmatch(request_id):
        request_id = f"{_REQUEST_ID_PREFIX}{next(_REQUEST_NUMBERS):012x}"
    remaining_s = context.time_remaining()
    deadline = None if remaining_s is None else time.monotonic() + remaining_s
    peer = context.peer()
    caller = callers.identify(metadata.pop("authorization", ""), peer)
    return Call(path, deadline, request_id, metadata, peer, caller.name), caller


def parse(request_type: type[Message], payload: bytes) -> Message:
    """Returns the request. Raises `InvalidRequest` if the bytes are none."""
    try:
        return request_type.FromString(payload)
    except DecodeError as error:
        raise InvalidRequest([Violation("", f"not a {request_type.DESCRIPTOR.full_name}")]) from error


def translate(error: Exception, call: Call) -> status_pb2.Status:
    """Returns the status of a failed call; a failure that nobody named goes to the log."""
    if not isinstance(error, ServiceError):
        _log.error("internal_error", method=call.method, request_id=call.request_id, exc_info=error)
    status = to_status(error, call.request_id)
    if status.code == code_pb2.OK:
        status.code = code_pb2.UNKNOWN
    return status


async def abort(context: grpc.aio.ServicerContext[bytes, bytes], status: status_pb2.Status) -> NoReturn:
    """Ends a call with a status and its details."""
    await context.abort(
        _STATUS_BY_CODE[status.code],
        status.message,
        trailing_metadata=(("grpc-status-details-bin", status.SerializeToString()),),
    )
