"""Keeps the newest slow requests for an operator to look at. Knows messages by their fields; knows no RPC by name.

Nothing personal is kept: every text and every bytes field is replaced by its length and a keyed hash, whose key is made
anew by each process and never leaves it. So equal ids can be told to be equal, and nobody can be found by guessing. Of
numbers only those of the request itself are kept, such as how many movies were asked for: those of its parts may be
ages, ratings and times.
"""

import hashlib
import secrets
import threading
import time
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from google.protobuf.message import Message

from service_runtime.calls import Call

CAPACITY = 100
_MAX_FIELDS = 40
_FIRST_VALUES = 3
# When everything is slow, telling of it should not make it slower.
_MIN_INTERVAL_S = 0.05


class SlowRequests:
    """A ring of what took long.

    Attributes:
        threshold_s: What takes at least so long is kept.
        num_slow: How many requests took so long, kept or not.
    """

    def __init__(
        self, threshold_s: float, capacity: int = CAPACITY, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Stores what counts as slow and how many are kept."""
        self.threshold_s = threshold_s
        self.num_slow = 0
        self._kept: deque[dict[str, object]] = deque(maxlen=capacity)
        self._lock = threading.Lock()
        self._key = secrets.token_bytes(16)
        self._clock = clock
        self._noted_at = -float("inf")

    def note(self, call: Call, code: str, elapsed_s: float, request: Message | None) -> None:
        """Keeps a request, unless one was kept a moment ago."""
        self.num_slow += 1
        now = self._clock()
        if now - self._noted_at < _MIN_INTERVAL_S:
            return
        self._noted_at = now
        kept = {
            "ended_at": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "method": call.method,
            "code": code,
            "elapsed_ms": round(elapsed_s * 1000, 3),
            "request_id": self._hashed(call.request_id),
            "notes": {name: round(number, 6) for name, number in call.notes.items()},
            "request": None if request is None else self._shape(request, [_MAX_FIELDS]),
        }
        with self._lock:
            self._kept.append(kept)

    def page(self) -> dict[str, object]:
        """Returns what is kept, the newest first; any thread may ask."""
        with self._lock:
            newest_first = list(reversed(self._kept))
        return {"threshold_ms": self.threshold_s * 1000, "num_slow": self.num_slow, "requests": newest_first}

    def _shape(self, message: Message, left: list[int], *, is_part: bool = False) -> dict[str, object]:
        """Returns a message's fields, at most `left[0]` of them with those of its parts."""
        shape: dict[str, object] = {}
        for field, value in message.ListFields():
            if left[0] <= 0:
                shape["..."] = "more fields"
                break
            left[0] -= 1
            if not field.is_repeated:
                shape[field.name] = self._value(value, left, is_part=is_part)
            elif field.message_type is not None and field.message_type.GetOptions().map_entry:
                shape[field.name] = {"count": len(value)}
            else:
                first = [self._value(each, left, is_part=True) for each in value[:_FIRST_VALUES]]
                shape[field.name] = {"count": len(value), "first": first}
        return shape

    def _value(self, value: Any, left: list[int], *, is_part: bool) -> object:
        if isinstance(value, Message):
            return self._shape(value, left, is_part=True)
        if isinstance(value, str | bytes):
            return self._hashed(value)
        return "a number" if is_part else value

    def _hashed(self, value: str | bytes) -> str:
        raw = value.encode() if isinstance(value, str) else value
        return f"#{hashlib.blake2b(raw, digest_size=6, key=self._key).hexdigest()} ({len(raw)} bytes)"
