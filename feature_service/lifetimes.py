"""How long each kind of data lives. Knows durations; knows no value and no key."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Lifetimes:
    """Times to live, in milliseconds; 0 is for ever.

    Attributes:
        profile_ms: Of a profile after it was last written.
        history_ms: Of a history, and of what was ever watched, after its last change.
        visible_ms: How long what expired stays in Redis, so that a reader is told EXPIRED and not NOT_FOUND.
    """

    profile_ms: int = 0
    history_ms: int = 0
    visible_ms: int = 86_400_000
