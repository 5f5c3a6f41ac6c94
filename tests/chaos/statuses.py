"""Says which failures a caller was told to expect. Knows the pages that list them; knows no drill."""

import re
from collections.abc import Collection
from pathlib import Path

import grpc
from marquee.client.errors import CallError

_ROOT = Path(__file__).parents[2]
_PAGES = ("protos/README.md", "docs/operations.md", "docs/security.md")
_REASON = re.compile(r"`([A-Z]+(?:_[A-Z]+)+)`")

# What passes by itself; every other status says that the request or the service is wrong, and neither is in a drill.
_PASSING = (
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
    grpc.StatusCode.DEADLINE_EXCEEDED,
)
# Said by gRPC itself, of a call that it did not take; by this reason a caller tells it from his own doing.
_NOT_TAKEN = "NOT_TAKEN"


def documented_reasons() -> set[str]:
    """Returns the reasons that the pages for callers and operators list."""
    return {reason for page in _PAGES for reason in _REASON.findall((_ROOT / page).read_text(encoding="utf-8"))}


def is_documented(error: CallError, reasons: Collection[str]) -> bool:
    """Tells whether a caller could know what to do: the status passes by itself and its reason stands in the pages."""
    if error.reason == _NOT_TAKEN:
        return error.code is grpc.StatusCode.CANCELLED and error.reason in reasons
    if error.code not in _PASSING:
        return False
    if not error.domain:
        # From the channel, on the caller's side: a server that cannot be reached, or time that is over.
        return error.code is not grpc.StatusCode.RESOURCE_EXHAUSTED
    # A deadline needs no further reason: its code is its reason.
    return error.reason in reasons or error.reason == error.code.name == "DEADLINE_EXCEEDED"
