"""Names every way in which a request can fail. Knows what callers are told; knows no gRPC server and no movie.

    ServiceError
    ├── InvalidRequest      INVALID_ARGUMENT     BadRequest: every violation
    ├── NotFound            NOT_FOUND            ResourceInfo: every id that is missing
    ├── FailedPrecondition  FAILED_PRECONDITION  the reason says what has to be different
    ├── Unauthenticated     UNAUTHENTICATED      nobody knows who calls
    ├── PermissionDenied    PERMISSION_DENIED    he is known, and may not
    ├── TooLarge            RESOURCE_EXHAUSTED   the request is larger than this caller's may be
    ├── ResourceExhausted   RESOURCE_EXHAUSTED   RetryInfo: when to come back
    ├── Unavailable         UNAVAILABLE          RetryInfo: when to come back
    └── DeadlineExceeded    DEADLINE_EXCEEDED

All carry google.rpc.ErrorInfo (reason, domain "marquee", request id). Any other exception is INTERNAL: a fixed text and
the request id; its traceback goes to the log.

Details travel in HTTP/2 trailers, of which a gRPC client takes 8 KiB by default and drops the whole answer beyond.
So long lists of violations or ids end with how many more there are.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from google.protobuf import any_pb2
from google.protobuf.message import Message
from google.rpc import code_pb2, error_details_pb2, status_pb2

DOMAIN = "marquee"
# Base64 makes 4/3 of the details and percent-encoding up to three bytes of one of the message, which is sent twice:
# together some 7 kB.
_DETAILS_BUDGET_BYTES = 4000
_MESSAGE_BUDGET_BYTES = 300


@dataclass(frozen=True, slots=True)
class Violation:
    """One thing that is wrong with a request.

    Attributes:
        field: Path of the field in the request, for example "events[3].event_time".
        description: What is wrong and what would be right.
    """

    field: str
    description: str


class ServiceError(Exception):
    """A failure that callers are told about.

    Attributes:
        code: The gRPC status, as a number of google.rpc.Code.
        reason: A constant in UPPER_SNAKE_CASE on which callers can branch.
        message: One sentence for a person.
        metadata: Further facts for programs, as ErrorInfo.metadata.
    """

    code: ClassVar[int] = code_pb2.UNKNOWN
    default_reason: ClassVar[str] = "UNKNOWN"

    def __init__(self, message: str, *, reason: str | None = None, metadata: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.reason = reason or self.default_reason
        self.metadata = dict(metadata or {})

    def details(self) -> list[Message]:
        """Returns what the status carries beside ErrorInfo."""
        return []


class InvalidRequest(ServiceError):
    """The request itself is wrong, whatever is stored: retrying it unchanged is useless."""

    code = code_pb2.INVALID_ARGUMENT
    default_reason = "INVALID_REQUEST"

    def __init__(self, violations: Sequence[Violation], *, reason: str | None = None) -> None:
        if not violations:
            raise ValueError("an invalid request has at least one violation")
        # The request as a whole has no path.
        first = ": ".join(text for text in (violations[0].field, violations[0].description) if text)
        rest = f" (and {len(violations) - 1} more)" if len(violations) > 1 else ""
        super().__init__(first + rest, reason=reason, metadata={"num_violations": str(len(violations))})
        self.violations = list(violations)

    def details(self) -> list[Message]:
        """Returns one BadRequest with all violations, as far as they fit."""
        bad_request = error_details_pb2.BadRequest()
        used_bytes = 0
        for position, violation in enumerate(self.violations):
            entry = error_details_pb2.BadRequest.FieldViolation(
                field=_shorten(violation.field), description=_shorten(violation.description)
            )
            used_bytes += entry.ByteSize() + 3
            if used_bytes > _DETAILS_BUDGET_BYTES:
                more = f"{len(self.violations) - position} more violations"
                bad_request.field_violations.add(field="", description=more)
                break
            bad_request.field_violations.append(entry)
        return [bad_request]


class NotFound(ServiceError):
    """Something that the request names does not exist."""

    code = code_pb2.NOT_FOUND
    default_reason = "NOT_FOUND"

    def __init__(self, kind: str, ids: Sequence[str], *, reason: str | None = None) -> None:
        rest = f" (and {len(ids) - 1} more)" if len(ids) > 1 else ""
        first = f" {ids[0]!r}" if ids else ""
        super().__init__(f"no {kind}{first}{rest}", reason=reason, metadata={"num_missing": str(len(ids))})
        self.kind = kind
        self.ids = list(ids)

    def details(self) -> list[Message]:
        """Returns a ResourceInfo per missing id, as far as they fit."""
        details: list[Message] = []
        used_bytes = 0
        for position, missing in enumerate(self.ids):
            entry = error_details_pb2.ResourceInfo(resource_type=self.kind, resource_name=missing)
            used_bytes += entry.ByteSize() + 48
            if used_bytes > _DETAILS_BUDGET_BYTES:
                more = f"{len(self.ids) - position} more"
                return [*details, error_details_pb2.ResourceInfo(resource_type=self.kind, description=more)]
            details.append(entry)
        return details


class FailedPrecondition(ServiceError):
    """The request is sound and the state of the service does not allow it; retrying soon is useless."""

    code = code_pb2.FAILED_PRECONDITION
    default_reason = "FAILED_PRECONDITION"


class Unauthenticated(ServiceError):
    """Nobody knows who calls."""

    code = code_pb2.UNAUTHENTICATED
    default_reason = "UNAUTHENTICATED"


class PermissionDenied(ServiceError):
    """It is known who calls, and he may not do this."""

    code = code_pb2.PERMISSION_DENIED
    default_reason = "PERMISSION_DENIED"


class TooLarge(ServiceError):
    """The request is larger than this caller's may be: retrying it is useless."""

    code = code_pb2.RESOURCE_EXHAUSTED
    default_reason = "MESSAGE_TOO_LARGE"


class _ComeBack(ServiceError):
    """A failure that goes away by waiting."""

    def __init__(
        self,
        message: str,
        *,
        retry_after_s: float,
        reason: str | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message, reason=reason, metadata=metadata)
        self.retry_after_s = retry_after_s

    def details(self) -> list[Message]:
        """Returns how long to wait."""
        retry_info = error_details_pb2.RetryInfo()
        retry_info.retry_delay.FromMilliseconds(round(self.retry_after_s * 1000))
        return [retry_info]


class ResourceExhausted(_ComeBack):
    """The service has as much work as it can do."""

    code = code_pb2.RESOURCE_EXHAUSTED
    default_reason = "RESOURCE_EXHAUSTED"


class Unavailable(_ComeBack):
    """Something that the service depends on is absent, or the service is not ready or is leaving."""

    code = code_pb2.UNAVAILABLE
    default_reason = "UNAVAILABLE"


class DeadlineExceeded(ServiceError):
    """The caller's deadline passed before there was an answer."""

    code = code_pb2.DEADLINE_EXCEEDED
    default_reason = "DEADLINE_EXCEEDED"

    def __init__(self, message: str = "the deadline passed before there was an answer") -> None:
        super().__init__(message)


def to_status(error: Exception, request_id: str) -> status_pb2.Status:
    """Returns what the caller is told; for anything but a `ServiceError` that is the request id and nothing else."""
    if isinstance(error, ServiceError):
        code, message, reason = error.code, _shorten(error.message), error.reason
        metadata, further = error.metadata, error.details()
    else:
        code, message, reason = code_pb2.INTERNAL, f"internal error; request id {request_id}", "INTERNAL"
        metadata, further = {}, []
    info = error_details_pb2.ErrorInfo(reason=reason, domain=DOMAIN, metadata={**metadata, "request_id": request_id})
    details = []
    for detail in (info, *further):
        packed = any_pb2.Any()
        packed.Pack(detail)
        details.append(packed)
    return status_pb2.Status(code=code, message=message, details=details)


def _shorten(text: str) -> str:
    return text.encode()[:_MESSAGE_BUDGET_BYTES].decode(errors="ignore")
