"""Talks to Redis: one command for all reads of a loop turn, one pipeline for all writes of a call, errors translated.

Knows connections and failures; knows no key and no value. `cluster_link` is the same for a cluster.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import redis.asyncio
import structlog
from redis import exceptions
from redis.asyncio.connection import AbstractConnection
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialWithJitterBackoff

from service_runtime.errors import Unavailable

_log = structlog.get_logger(__name__)
# Bounds how long one command keeps Redis from other callers: a user is 5 kB at most, so some 10 MB.
_MAX_KEYS_PER_READ = 4096
_RETRY_AFTER_S = 1.0
BACKOFF = ExponentialWithJitterBackoff(base=0.02, cap=0.2)

Command = Sequence[bytes | str | int]


class RedisLink:
    """A pool of connections to one Redis.

    Reads that are asked for in the same turn of the event loop travel as one MGET, because redis-py's asyncio client
    costs 45-105 µs a command and Redis far less a key.
    """

    def __init__(self, url: str, *, timeout_s: float, max_connections: int, num_replicas_to_wait_for: int = 0) -> None:
        """Stores where Redis is; it connects with the first command.

        Args:
            url: redis://, rediss:// or unix:// as redis-py reads it.
            timeout_s: How long a command may take.
            max_connections: How many commands may be under way; further ones wait.
            num_replicas_to_wait_for: How many replicas must have a write before it counts as done.
        """
        self._timeout_s = timeout_s
        self._num_replicas_to_wait_for = num_replicas_to_wait_for
        self._open(url, max_connections)
        self._waiting: list[tuple[Sequence[bytes], asyncio.Future[list[bytes | None]]]] = []
        self._reads: set[asyncio.Task[None]] = set()
        self._down: str | None = "Redis was not asked yet"
        self.failed = asyncio.Event()

    def _open(self, url: str, max_connections: int) -> None:
        self._pool = redis.asyncio.BlockingConnectionPool.from_url(
            url,
            max_connections=max_connections,
            timeout=self._timeout_s,
            socket_timeout=self._timeout_s,
            socket_connect_timeout=self._timeout_s,
            # A connection that Redis closed while it lay idle costs a second try, not a failed request.
            retry=Retry(BACKOFF, 1),
        )
        self._client = redis.asyncio.Redis(connection_pool=self._pool)

    async def close(self) -> None:
        """Closes all connections."""
        await self._client.aclose()
        await self._pool.disconnect()

    async def new_connections(self) -> list[AbstractConnection]:
        """Returns a connection to each server that takes writes, outside the pool, not connected yet, with RESP2.

        Raises:
            Unavailable: Nobody can say which servers these are.
        """
        arguments = {**self._pool.connection_kwargs, "protocol": 2}
        connection: AbstractConnection = self._pool.connection_class(**arguments)
        return [connection]

    def layout(self) -> object:
        """Returns what is the same as long as `new_connections` leads to the same servers for the same keys."""
        return None

    async def probe(self) -> None:
        """Asks whether Redis is there. While it is not, everything else fails at once instead of waiting for it.

        Raises:
            Unavailable: Redis cannot be asked.
        """
        self._down = None
        await self.command("PING")

    async def read(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """Returns the values of keys as of one moment, None where there is none.

        Raises:
            Unavailable: Redis cannot be asked.
        """
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[list[bytes | None]] = loop.create_future()
        if not self._waiting:
            loop.call_soon(self._start_reads)
        self._waiting.append((keys, answer))
        return await answer

    async def command(self, *command: bytes | str | int) -> Any:
        """Sends one command and returns its answer.

        Raises:
            Unavailable: Redis cannot be asked.
        """
        async with self._translated():
            return await self._client.execute_command(*command)  # type: ignore[no-untyped-call]

    async def commands(self, commands: Sequence[Command]) -> list[Any]:
        """Sends commands in one round trip and returns their answers; they are not one transaction.

        Raises:
            Unavailable: Redis cannot be asked, or failed after some of them.
        """
        async with self._translated():
            return await self._pipeline(commands, 0)

    async def write(self, commands: Sequence[Command]) -> list[Any]:
        """Sends commands as `commands` does and returns when as many replicas as configured have what they wrote.

        Raises:
            Unavailable: As `commands`, or there are too few replicas: what was written may be lost if Redis fails over.
        """
        async with self._translated():
            return await self._pipeline(commands, self._num_replicas_to_wait_for)

    async def _pipeline(self, commands: Sequence[Command], num_replicas: int) -> list[Any]:
        pipeline = self._client.pipeline(transaction=False)
        for command in commands:
            pipeline.execute_command(*command)
        if not num_replicas:
            return await pipeline.execute()
        # WAIT counts what its own connection wrote, and a pipeline has one.
        pipeline.execute_command("WAIT", num_replicas, self._wait_ms())
        *answers, num_reached = await pipeline.execute()
        self._require_replicas([num_reached])
        return answers

    def _wait_ms(self) -> int:
        return max(1, int(self._timeout_s * 500))

    def _require_replicas(self, nums_reached: Sequence[int]) -> None:
        if min(nums_reached) < self._num_replicas_to_wait_for:
            raise Unavailable(
                "too few replicas have the write: it is stored and may be lost if Redis fails over; repeat it",
                reason="NOT_REPLICATED",
                retry_after_s=_RETRY_AFTER_S,
            )

    async def _values(self, keys: Sequence[bytes]) -> list[bytes | None]:
        values: list[bytes | None] = await self.command("MGET", *keys)
        return values

    def _start_reads(self) -> None:
        waiting, self._waiting = self._waiting, []
        together: list[tuple[Sequence[bytes], asyncio.Future[list[bytes | None]]]] = []
        num_keys = 0
        for request in waiting:
            if together and num_keys + len(request[0]) > _MAX_KEYS_PER_READ:
                self._start_read(together)
                together, num_keys = [], 0
            together.append(request)
            num_keys += len(request[0])
        self._start_read(together)

    def _start_read(self, requests: list[tuple[Sequence[bytes], asyncio.Future[list[bytes | None]]]]) -> None:
        task = asyncio.create_task(self._read(requests))
        self._reads.add(task)
        task.add_done_callback(self._reads.discard)

    async def _read(self, requests: list[tuple[Sequence[bytes], asyncio.Future[list[bytes | None]]]]) -> None:
        try:
            values = await self._values([key for keys, _ in requests for key in keys])
        except Exception as error:  # noqa: BLE001  every caller who waits gets the failure
            for _, answer in requests:
                if not answer.done():
                    answer.set_exception(error)
            return
        position = 0
        for keys, answer in requests:
            if not answer.done():
                answer.set_result(values[position : position + len(keys)])
            position += len(keys)

    @asynccontextmanager
    async def _translated(self) -> AsyncIterator[None]:
        if self._down is not None:
            raise Unavailable(self._down, reason="REDIS_UNAVAILABLE", retry_after_s=_RETRY_AFTER_S)
        try:
            yield
        except (
            exceptions.ConnectionError,
            exceptions.TimeoutError,
            exceptions.ReadOnlyError,
            exceptions.OutOfMemoryError,
            exceptions.ClusterDownError,
            exceptions.ClusterError,
            exceptions.RedisClusterException,
            OSError,
        ) as error:
            text = describe(error)
            if isinstance(error, exceptions.ConnectionError):
                self._down = text
            self.failed.set()
            raise Unavailable(text, reason="REDIS_UNAVAILABLE", retry_after_s=_RETRY_AFTER_S) from error


def describe(error: Exception) -> str:
    """Returns why Redis cannot be asked, for a person; the address stays in the log of who configured it."""
    kinds: list[tuple[type[Exception], str]] = [
        (exceptions.AuthenticationError, "Redis refuses our user or password"),
        (exceptions.BusyLoadingError, "Redis is loading its data"),
        (exceptions.ReadOnlyError, "this Redis is a read-only replica"),
        (exceptions.OutOfMemoryError, "Redis is out of memory"),
        (exceptions.TimeoutError, "Redis does not answer in time"),
        (exceptions.ClusterDownError, "the Redis cluster is down or failing over"),
        (exceptions.MaxConnectionsError, "all connections to Redis are in use"),
    ]
    for kind, text in kinds:
        if isinstance(error, kind):
            return text
    return "Redis cannot be reached"
