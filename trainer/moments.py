"""Writes moments as people read them. Knows no clock."""

from datetime import UTC, datetime


def moment_text(epoch_ms: int) -> str:
    """Returns a moment, to the second."""
    return datetime.fromtimestamp(epoch_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
