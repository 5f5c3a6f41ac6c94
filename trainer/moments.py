"""Writes moments as people read them. Knows no clock."""

from datetime import UTC, datetime


def moment_text(epoch_ms: int) -> str:
    """Returns a moment, to the second; its number where no calendar has it, as in a damaged file."""
    try:
        return datetime.fromtimestamp(epoch_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    except (ValueError, OverflowError, OSError):
        return f"{epoch_ms} ms after 1970"
