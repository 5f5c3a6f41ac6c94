"""Brings all users to the newest format, at a pace, and goes on where it was stopped. For an operator's command.

A request never needs it: older formats are read, and a user is rewritten when he changes. It is for who wants to be
rid of a format before a build that no longer reads it. Knows keys, formats and servers; knows no request.
"""

import asyncio
import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from redis.asyncio.connection import AbstractConnection

from feature_service import keys
from feature_service.redis_link import RedisLink
from feature_service.scripts import script
from feature_service.value_format import OLD_STATE_FORMAT, STATE_FORMAT

_KEYS_PER_SCAN = 500
_KNOWN = (OLD_STATE_FORMAT, STATE_FORMAT)


@dataclass(slots=True)
class Rewritten:
    """What was found.

    Attributes:
        by_format: Users by the format that they had.
        resumed: Whether it went on where an earlier run was stopped, whose users are not counted.
    """

    by_format: Counter[int] = field(default_factory=Counter)
    resumed: bool = False

    @property
    def num_newer(self) -> int:
        """Users of a format that this build does not know."""
        return sum(count for form, count in self.by_format.items() if form not in _KNOWN)


async def rewrite_states(
    link: RedisLink,
    *,
    write: bool,
    per_second: float,
    clock: Callable[[], float],
    progress: Callable[[Rewritten], None],
) -> Rewritten:
    """Looks at every user once, one server after the other; returns how many had which format.

    Args:
        link: Redis.
        write: Whether users of older formats are rewritten; else they are only counted.
        per_second: Users to look at in a second at most.
        clock: Gives monotonic seconds.
        progress: Told now and then what was found so far.
    """
    found = Rewritten()
    for connection in await link.new_connections():
        await connection.connect()  # type: ignore[no-untyped-call]
        try:
            await _rewrite_server(link, connection, found, write, per_second, clock, progress)
        finally:
            await connection.disconnect()
    if write:
        await link.command("DEL", keys.REWRITING)
    return found


async def _rewrite_server(
    link: RedisLink,
    connection: AbstractConnection,
    found: Rewritten,
    write: bool,
    per_second: float,
    clock: Callable[[], float],
    progress: Callable[[Rewritten], None],
) -> None:
    # A cursor means something to the very process that gave it.
    run_id = _run_id(await _ask(connection, "INFO", "server"))
    cursor = b"0"
    if write:
        kept = await link.command("HGET", keys.REWRITING, run_id)
        if kept is not None:
            cursor, found.resumed = json.loads(kept)["cursor"].encode(), True
    while True:
        began = clock()
        cursor, states = await _ask(connection, "SCAN", cursor, "MATCH", "{p*}:u:*", "COUNT", _KEYS_PER_SCAN)
        groups: dict[bytes, list[bytes]] = {}
        for key in states:
            groups.setdefault(key[: key.index(b"}")], []).append(key)
        for group in groups.values():
            mode = "write" if write else "count"
            found.by_format.update(await _ask(connection, "EVAL", script("rewrite_states"), len(group), *group, mode))
        progress(found)
        if cursor == b"0":
            return
        if write:
            await link.command("HSET", keys.REWRITING, run_id, json.dumps({"cursor": cursor.decode()}))
        await asyncio.sleep(max(0.0, len(states) / per_second - (clock() - began)))


async def _ask(connection: AbstractConnection, *command: bytes | str | int) -> Any:
    await connection.send_command(*command)
    return await connection.read_response()


def _run_id(info: bytes) -> str:
    return next(line[7:].decode() for line in info.splitlines() if line.startswith(b"run_id:"))
