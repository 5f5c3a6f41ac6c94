"""Talks to Redis: one command for all reads of a loop turn, one pipeline for all writes of a call, more than one try.

Knows connections; knows no key and no value. `redis_failures` says what a failure means, `cluster_link` is the same for
a cluster.

Everything that is sent may be sent again: reads, and scripts that merge, so that a second time changes nothing. All
tries together take no longer than one command may, and end with the caller: gRPC cancels the handler of a call whose
deadline has passed.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import redis.asyncio
import structlog
from redis import exceptions
from redis.asyncio.connection import AbstractConnection, parse_url
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialWithJitterBackoff, NoBackoff
from redis.maint_notifications import MaintNotificationsConfig

from feature_service.packed_commands import packed, packing_in_c
from feature_service.read_line import ReadLine
from feature_service.redis_failures import FORBIDDEN, Failure, describe, failure_of, hung_up
from feature_service.redis_meter import RedisMeter
from feature_service.redis_security import RedisSecurity
from service_runtime.errors import ServiceError, Unavailable

_log = structlog.get_logger(__name__)
# Bounds how long one command keeps Redis from other callers: a user is 5 kB at most, so some 10 MB.
_MAX_KEYS_PER_READ = 4096
_RETRY_AFTER_S = 1.0
_NOT_ASKED = Failure("REDIS_UNAVAILABLE", "Redis was not asked yet")
# Waits of at most 40, 80 and 160 ms, each of a random length: a connection that was closed while it lay idle costs no
# wait worth the name, and what takes longer is the caller's to wait for.
_RETRIES = 3
_BACKOFF = ExponentialWithJitterBackoff(base=0.02, cap=0.2)
NO_RETRY = Retry(NoBackoff(), 0)

T = TypeVar("T")
Command = Sequence[bytes | str | int]
Request = tuple[Sequence[bytes], asyncio.Future[list[bytes | None]]]
"""Keys, and who waits for their values."""


class RedisLink:
    """A pool of connections to one Redis.

    Reads that are asked for in the same turn of the event loop travel as one MGET, because redis-py's asyncio client
    costs 45-105 µs a command and Redis far less a key.
    """

    on_cluster = False

    def __init__(
        self,
        url: str,
        *,
        timeout_s: float,
        max_connections: int,
        num_replicas_to_wait_for: int = 0,
        security: RedisSecurity | None = None,
        meter: RedisMeter | None = None,
    ) -> None:
        """Stores where Redis is; it connects with the first command.

        Args:
            url: redis://, rediss:// or unix:// as redis-py reads it.
            timeout_s: How long a command may take, with all its tries.
            max_connections: How many commands may be under way; further ones wait.
            num_replicas_to_wait_for: How many replicas must have a write before it counts as done.
            security: Who we are, and whom we trust.
            meter: Is told what it takes and how it fails.
        """
        self._meter = meter
        self._timeout_s = timeout_s
        self._security = security or RedisSecurity()
        self._num_replicas_to_wait_for = num_replicas_to_wait_for
        self._retry = Retry(_BACKOFF, _RETRIES, supported_errors=(Exception,))  # type: ignore[arg-type]
        self._open(url, max_connections)
        self._waiting: list[Request] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._line: ReadLine | None = None
        self._opening = False
        self._down: Failure | None = _NOT_ASKED
        self.failed = asyncio.Event()

    def _open(self, url: str, max_connections: int) -> None:
        where = parse_url(url)
        if "connection_class" in where and "path" not in where:
            where["connection_class"] = self._security.connection_class()
        self._pool = redis.asyncio.BlockingConnectionPool(
            **where,
            **self._security.credentials(),
            # Redis is asked for nothing that its ACL would have to allow and that we have no use for.
            driver_info=None,
            maint_notifications_config=MaintNotificationsConfig(enabled=False),
            max_connections=max_connections,
            timeout=self._timeout_s,
            socket_timeout=self._timeout_s,
            socket_connect_timeout=self._timeout_s,
            retry=NO_RETRY,
        )
        self._pool.connection_class = packing_in_c(self._pool.connection_class)
        self._client = redis.asyncio.Redis(connection_pool=self._pool)

    async def close(self) -> None:
        """Closes all connections."""
        self._hang_up()
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

    async def command(self, *command: bytes | str | int, may_be_forbidden: bool = False) -> Any:
        """Sends one command and returns its answer.

        Args:
            command: Its words.
            may_be_forbidden: Whether it is no failure of Redis if its ACL forbids us the command.

        Raises:
            Unavailable: Redis cannot be asked.
        """
        expected = FORBIDDEN if may_be_forbidden else ""
        return await self._tried(lambda: self._command(command), str(command[0]), expected=expected)

    async def commands(self, commands: Sequence[Command]) -> list[Any]:
        """Sends commands in one round trip and returns their answers; they are not one transaction.

        Raises:
            Unavailable: Redis cannot be asked, or failed after some of them.
        """
        return await self._tried(lambda: self._pipeline(commands, 0), "pipeline")

    async def write(self, commands: Sequence[Command]) -> list[Any]:
        """Sends commands as `commands` does and returns when as many replicas as configured have what they wrote.

        Raises:
            Unavailable: As `commands`, or there are too few replicas: what was written may be lost if Redis fails over.
        """
        return await self._tried(lambda: self._pipeline(commands, self._num_replicas_to_wait_for), "write")

    async def _command(self, command: Command) -> Any:
        with hung_up():
            return await self._client.execute_command(*command)  # type: ignore[no-untyped-call]

    async def _pipeline(self, commands: Sequence[Command], num_replicas: int) -> list[Any]:
        pipeline = self._client.pipeline(transaction=False)
        for command in commands:
            pipeline.execute_command(*command)
        if num_replicas:
            # It counts what its own connection wrote, and a pipeline has one.
            pipeline.execute_command("WAIT", num_replicas, self._wait_ms())
        with hung_up():
            answers = await pipeline.execute()
        if not num_replicas:
            return answers
        *answers, num_reached = answers
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

    async def _values(self, keys: Sequence[bytes], began: float) -> list[bytes | None]:
        """Reads by a pooled connection, with all tries that there is time for."""
        values: list[bytes | None] = await self._tried(lambda: self._command(("MGET", *keys)), "MGET", began)
        return values

    def _start_reads(self) -> None:
        waiting, self._waiting = self._waiting, []
        together: list[Request] = []
        num_keys = 0
        for request in waiting:
            if together and num_keys + len(request[0]) > _MAX_KEYS_PER_READ:
                self._start_read(together)
                together, num_keys = [], 0
            together.append(request)
            num_keys += len(request[0])
        self._start_read(together)

    def _start_read(self, requests: list[Request]) -> None:
        keys = requests[0][0] if len(requests) == 1 else [key for keys, _ in requests for key in keys]
        began = time.perf_counter()
        if not self._read_at_once(keys, lambda values: self._answered(requests, keys, began, values)):
            self._in_background(self._read(requests, keys, began))

    def _read_at_once(self, keys: Sequence[bytes], tell: Callable[[Any], None]) -> bool:
        """Reads without a task and a second try, if there is a line for that."""
        if self._line is None or not self._line.is_open or self._down is not None:
            return False
        self._line.ask(packed(("MGET", *keys)), tell)
        return True

    def _answered(self, requests: list[Request], keys: Sequence[bytes], began: float, values: Any) -> None:
        if isinstance(values, Exception):
            # Whatever it was: the way with tries either gets the values or knows what to say.
            if self._meter is not None:
                self._meter.try_failed()
            self._in_background(self._read(requests, keys, began))
            return
        if self._meter is not None:
            self._meter.took("MGET", time.perf_counter() - began)
        _share_out(values, requests)

    async def _read(self, requests: list[Request], keys: Sequence[bytes], began: float) -> None:
        try:
            values = await self._values(keys, began)
        except Exception as error:  # noqa: BLE001  every caller who waits gets the failure
            for _, answer in requests:
                if not answer.done():
                    answer.set_exception(error)
            return
        _share_out(values, requests)
        if not self._opening:
            self._opening = True
            try:
                await self._open_lines()
            except (exceptions.RedisError, OSError) as error:
                # Reads go by the pool, and the next one tries again.
                _log.info("no_line_for_reads", reason=describe(error))
            finally:
                self._opening = False

    async def _open_lines(self) -> None:
        """Makes the line for the reads to come, if there is none."""
        if self._line is None or not self._line.is_open:
            [connection] = await self.new_connections()
            line = ReadLine(connection, self._timeout_s)
            await line.open()
            self._line = line

    def _hang_up(self) -> None:
        """Leaves the line: what waits on it is asked for in the other way."""
        line, self._line = self._line, None
        if line is not None:
            line.close()

    def _in_background(self, doing: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(doing)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _tried(
        self, once: Callable[[], Awaitable[T]], command: str, began: float | None = None, expected: str = ""
    ) -> T:
        """Does something until it succeeds, there is no sense in another try, or the time of one command is over."""
        began = time.perf_counter() if began is None else began
        try:
            async with self._translated(), asyncio.timeout(began + self._timeout_s - time.perf_counter()):
                return await self._retry.call_with_retry(once, self._on_failure, is_retryable=self._passes)
        except ServiceError as error:
            if self._meter is not None and error.reason != expected:
                self._meter.failed(error.reason)
            raise
        finally:
            if self._meter is not None:
                self._meter.took(command, time.perf_counter() - began)

    def _passes(self, error: Exception) -> bool:
        if self._meter is not None:
            self._meter.try_failed()
        failure = failure_of(error, on_cluster=self.on_cluster)
        return failure is not None and failure.passes

    async def _on_failure(self, _: Exception) -> None:
        """Prepares another try. Idle connections go: they may lead to a server that is a replica by now."""
        self._hang_up()
        await self._pool.disconnect(inuse_connections=False)

    @asynccontextmanager
    async def _translated(self) -> AsyncIterator[None]:
        if self._down is not None:
            raise self._down.error()
        try:
            yield
        except (exceptions.RedisError, exceptions.RedisClusterException, OSError) as error:
            failure = failure_of(error, on_cluster=self.on_cluster)
            if failure is None:
                raise
            if isinstance(error, exceptions.ConnectionError) and not self.on_cluster:
                # Of a cluster one server alone may be away.
                self._down = failure
            self.failed.set()
            raise failure.error() from error


def _share_out(values: list[bytes | None], requests: Sequence[Request]) -> None:
    if len(requests) == 1:
        answer = requests[0][1]
        if not answer.done():
            answer.set_result(values)
        return
    position = 0
    for keys, answer in requests:
        if not answer.done():
            answer.set_result(values[position : position + len(keys)])
        position += len(keys)
