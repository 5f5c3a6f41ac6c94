"""Walks through all that a store holds, and sums it up so that two stores can be compared. For backups.

Knows which keys are ours and how each is read; knows no value's layout.
"""

import hashlib
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import redis.asyncio

from feature_service import keys
from feature_service.redis_link import Command

_KEYS_PER_PAGE = 500
_NOT_CONTENT = (keys.EPOCH, keys.RESTORING, keys.REWRITING)
_DIGEST_MODULUS = 1 << 256
_PARTS_PER_COMMAND = 1000


@dataclass(frozen=True, slots=True)
class Value:
    """One value of a store.

    Attributes:
        key: Where it lies.
        content: As `reading_of` gives it.
        ttl_ms: How long it still lives; 0 is for ever.
        fingerprint: The same for the same content, however Redis encodes it.
    """

    key: bytes
    content: Any
    ttl_ms: int
    fingerprint: bytes


@dataclass(slots=True)
class Summary:
    """What a store holds.

    Attributes:
        counts: Values by kind.
        digest: Sum over what lives for ever; the order in which it is met does not matter.
    """

    counts: Counter[str] = field(default_factory=Counter)
    digest: int = 0

    def add(self, value: Value) -> None:
        """Counts one value."""
        self.counts[kind_of(value.key)] += 1
        if not value.ttl_ms:
            self.digest = (self.digest + int.from_bytes(value.fingerprint, "little")) % _DIGEST_MODULUS


def kind_of(key: bytes) -> str:
    """Returns what lies at a key; empty if it is none of ours, or not content."""
    tag, _, rest = key.partition(b":")
    if key in _NOT_CONTENT or not (tag == b"{m}" or (tag.startswith(b"{p") and tag.endswith(b"}"))):
        return ""
    if tag == b"{m}":
        return "catalogue" if rest.startswith(b"c:") else "marks"
    kinds = {b"u:": "users", b"s:": "seen sets", b"t:": "tombstones"}
    return kinds.get(rest[:2], "event logs" if rest == b"log" else "counters")


async def values_of(client: redis.asyncio.Redis) -> AsyncIterator[list[Value]]:
    """Goes through all that is ours on a server to which nobody writes, page by page; each value comes once."""
    cursor = 0
    met: set[bytes] = set()  # SCAN names a key again where Redis moves it meanwhile
    while True:
        cursor, found = await client.scan(cursor, count=_KEYS_PER_PAGE)
        ours = [key for key in found if isinstance(key, bytes) and kind_of(key) and key not in met]
        met.update(ours)
        pipeline = client.pipeline(transaction=False)
        for key in ours:
            pipeline.pttl(key)
            pipeline.execute_command(*reading_of(key))
        answers = await pipeline.execute()
        yield [
            Value(key, content, max(0, ttl_ms), fingerprint(key, content))
            for key, ttl_ms, content in zip(ours, answers[::2], answers[1::2], strict=True)
            if content is not None
        ]
        if cursor == 0:
            return


def reading_of(key: bytes) -> Command:
    """Returns the command that reads a value whole."""
    if key.endswith(b":log"):
        return ("XRANGE", key, "-", "+")
    if key.startswith(b"{m}:c:"):
        return ("HGETALL", key) if key.endswith(b":rows") else ("ZRANGE", key, 0, -1, "WITHSCORES")
    return ("HGETALL", key) if key == keys.EXPORTS else ("GET", key)


def writing_of(value: Value) -> list[Command]:
    """Returns the commands that put a value where nothing, or a part of it, is.

    Not RESTORE: it takes no value of a newer Redis than its own.
    """
    key, content = value.key, value.content
    if isinstance(content, bytes):
        return [("SET", key, content, *(("PX", value.ttl_ms) if value.ttl_ms else ()))]
    commands: list[Command] = [("DEL", key)]
    if isinstance(content, dict):
        for part in _batched(list(content.items())):
            commands.append(("HSET", key, *(each for pair in part for each in pair)))
    elif key.endswith(b":log"):
        for position, fields in content:
            commands.append(("XADD", key, position, *(each for pair in fields.items() for each in pair)))
    else:
        for part in _batched(content):
            commands.append(("ZADD", key, *(each for member, score in part for each in (repr(score), member))))
    return commands


def fingerprint(key: bytes, value: Any) -> bytes:
    """Returns what stands for a value as `reading_of` gives it."""
    content = hashlib.sha256()
    for part in (key, *_parts(value)):
        content.update(len(part).to_bytes(8, "little"))
        content.update(part)
    return content.digest()


def _parts(value: Any) -> Sequence[bytes]:
    if isinstance(value, dict):
        return [part for pair in sorted(value.items()) for each in pair for part in _parts(each)]
    if isinstance(value, list | tuple):
        return [part for each in value for part in _parts(each)]
    return [value if isinstance(value, bytes) else repr(value).encode()]


def _batched(rows: Sequence[Any]) -> Iterator[Sequence[Any]]:
    for first in range(0, len(rows), _PARTS_PER_COMMAND):
        yield rows[first : first + _PARTS_PER_COMMAND]
