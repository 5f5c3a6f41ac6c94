"""How the tests of faults make a Redis refuse, and read what callers are told. Knows settings; knows no fault."""

from collections.abc import Iterator
from contextlib import contextmanager

import grpc
import pytest
import redis
from marquee.client.errors import CallError, read_error

# Callers see each failure; the client's own tries would hide what they are told at first.
NO_RETRIES = [("grpc.enable_retries", 0)]


async def refusal(call) -> CallError:
    """Returns how a call fails."""
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await call
    return read_error(raised.value)


@contextmanager
def configured(client: redis.Redis, **settings: str) -> Iterator[None]:
    """Sets what Redis is told, for a while."""
    wanted = {name.replace("_", "-"): value for name, value in settings.items()}
    before = {name: str(client.config_get(name)[name]) for name in wanted}
    for name, value in wanted.items():
        client.config_set(name, value)
    try:
        yield
    finally:
        for name, value in before.items():
            client.config_set(name, value)
