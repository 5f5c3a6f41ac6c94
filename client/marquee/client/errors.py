"""Reads what a service says about a failure. Knows google.rpc details; knows no RPC."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import grpc
from google.rpc import error_details_pb2, status_pb2

NOT_TAKEN = "NOT_TAKEN"
"""Reason of a call that no handler ever saw: more callers wait than can be answered in time, or the service leaves."""

_NOT_TAKEN = "the service did not take the call: too many wait, or it leaves; nothing was done, come back later"


@dataclass(frozen=True, slots=True)
class Violation:
    """One thing that is wrong with a request: the path of the field and what is wrong with it."""

    field: str
    description: str


@dataclass(frozen=True, slots=True)
class _Details:
    message: str
    reason: str = ""
    domain: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict)
    violations: Sequence[Violation] = ()
    missing_ids: Sequence[str] = ()
    retry_after_s: float | None = None


class CallError(Exception):
    """A call to a service of ours failed; its text is meant for a person.

    Attributes:
        code: The gRPC status.
        message: The service's sentence.
        reason: The service's constant, for example "MOVIE_NOT_FOUND"; empty if the failure came from elsewhere.
        domain: "marquee" if a service of ours failed; empty if the failure came from elsewhere.
        metadata: Further facts; always the request id when a service of ours failed.
        violations: Everything that is wrong with the request.
        missing_ids: What the request named and does not exist.
        retry_after_s: When to come back, in seconds; None if the service did not say.
    """

    def __init__(self, code: grpc.StatusCode, details: _Details) -> None:
        super().__init__(_text(code, details))
        self.code = code
        self.message = details.message
        self.reason = details.reason
        self.domain = details.domain
        self.metadata = dict(details.metadata)
        self.violations = list(details.violations)
        self.missing_ids = list(details.missing_ids)
        self.retry_after_s = details.retry_after_s

    @classmethod
    def of(
        cls, code: grpc.StatusCode, message: str, *, reason: str = "", missing_ids: Sequence[str] = ()
    ) -> "CallError":
        """Returns a failure that came not as a status: that of a row of a batch, or of the caller's own time."""
        return cls(code, _Details(message, reason, "marquee" if reason else "", missing_ids=missing_ids))

    @property
    def request_id(self) -> str:
        """By what id the service's log knows the call; empty if it never got there."""
        return self.metadata.get("request_id", "")


def read_error(error: grpc.RpcError) -> CallError:
    """Returns what an RpcError of grpc or grpc.aio means; raise it `from` the original."""
    if not isinstance(error, grpc.Call | grpc.aio.AioRpcError):
        return CallError(grpc.StatusCode.UNKNOWN, _Details(str(error)))
    message = error.details() or ""
    for key, value in error.trailing_metadata() or ():
        if key == "grpc-status-details-bin":
            payload = value if isinstance(value, bytes) else value.encode("latin-1")
            return CallError(error.code(), _read_details(message, payload))
    if error.code() is grpc.StatusCode.CANCELLED and not (isinstance(error, grpc.Future) and error.cancelled()):
        # Nobody here cancelled it, and no handler of ours ends a call so: gRPC did, before any handler saw it.
        return CallError(error.code(), _Details(_NOT_TAKEN, NOT_TAKEN))
    return CallError(error.code(), _Details(message))


def _read_details(message: str, payload: bytes) -> _Details:
    info = error_details_pb2.ErrorInfo()
    bad_request = error_details_pb2.BadRequest()
    retry = error_details_pb2.RetryInfo()
    violations: list[Violation] = []
    missing: list[str] = []
    retry_after_s = None
    for packed in status_pb2.Status.FromString(payload).details:
        resource = error_details_pb2.ResourceInfo()
        packed.Unpack(info)
        if packed.Unpack(bad_request):
            violations += [Violation(each.field, each.description) for each in bad_request.field_violations]
        if packed.Unpack(retry):
            retry_after_s = retry.retry_delay.ToTimedelta().total_seconds()
        if packed.Unpack(resource) and resource.resource_name:
            missing.append(resource.resource_name)
    return _Details(message, info.reason, info.domain, dict(info.metadata), violations, missing, retry_after_s)


def _text(code: grpc.StatusCode, details: _Details) -> str:
    head = f"{code.name}{f' ({details.reason})' if details.reason else ''}: {details.message}"
    lines = [head]
    if len(details.violations) > 1:
        lines += [f"  {each.field}: {each.description}" for each in details.violations]
    if details.retry_after_s is not None:
        lines.append(f"  try again in {details.retry_after_s:g} s")
    return "\n".join(lines)
