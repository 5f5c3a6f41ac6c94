"""What hiredis packs is what redis-py would have sent."""

import pytest
from redis.asyncio.connection import Connection

from feature_service.packed_commands import packing_in_c

COMMANDS = [
    ("PING",),
    ("MGET", b"{p1}:u:a", "ü", b"\x00\r\n$5"),
    ("EVAL", b"return 1", 0, 7, -1, 2**53, 1.5, b""),
    ("CLIENT LIST", "TYPE", "normal"),
    ("SET", b"k", b"v" * 20_000),
]


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command[0])
def test_a_command_is_packed_as_redis_py_does(command):
    """Text, bytes, numbers, nothing at all, two words in one: byte for byte."""
    assert b"".join(packing_in_c(Connection)().pack_command(*command)) == b"".join(Connection().pack_command(*command))


def test_a_pipeline_is_packed_as_redis_py_does():
    """All of its commands, in their order."""
    ours, theirs = packing_in_c(Connection)(), Connection()

    assert b"".join(ours.pack_commands(COMMANDS)) == b"".join(theirs.pack_commands(COMMANDS))
