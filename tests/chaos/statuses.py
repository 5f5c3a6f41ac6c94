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
# What gRPC itself says, on the caller's side, of a server that cannot be reached and of time that is over.
_OF_THE_CHANNEL = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)


def documented_reasons() -> set[str]:
    """Returns the reasons that the pages for callers and operators list."""
    return {reason for page in _PAGES for reason in _REASON.findall((_ROOT / page).read_text(encoding="utf-8"))}


def is_documented(error: CallError, reasons: Collection[str]) -> bool:
    """Tells whether a caller could know what to do: the status passes by itself and its reason stands in the pages."""
    if error.code not in _PASSING:
        return False
    if not error.domain:
        return error.code in _OF_THE_CHANNEL
    # A deadline needs no further reason: its code is its reason.
    return error.reason in reasons or error.reason == error.code.name == "DEADLINE_EXCEEDED"
