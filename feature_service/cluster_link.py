"""Talks to a Redis cluster as `redis_link` talks to one server. Knows slots and servers; knows no key by name.

Reads of a loop turn travel as one MGET a hash tag, all those of a server in one pipeline, servers side by side.

redis-py's own tries are turned off: it repeats what failed of a pipeline and keeps the rest, so that a WAIT may end up
on another server than the write that it is to vouch for.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import structlog
from redis import exceptions
from redis.asyncio.cluster import ClusterNode, RedisCluster
from redis.asyncio.connection import AbstractConnection, parse_url
from redis.maint_notifications import MaintNotificationsConfig

from feature_service.redis_failures import describe, hung_up
from feature_service.redis_link import NO_RETRY, Command, RedisLink
from service_runtime.errors import Unavailable

_log = structlog.get_logger(__name__)
_READS = ("GET", "MGET", "XRANGE")


class ClusterLink(RedisLink):
    """Connections to all servers of a cluster."""

    on_cluster = True
    _cluster: RedisCluster

    def _open(self, url: str, max_connections: int) -> None:
        arguments: dict[str, Any] = dict(parse_url(url))
        host, port = arguments.pop("host", "127.0.0.1"), arguments.pop("port", 6379)
        arguments.pop("db", None)  # a cluster has one
        with_tls = arguments.pop("connection_class", None) is not None
        # One that is under way has one connection to each server; redis-py fails where it runs out of them.
        self._places = asyncio.Semaphore(max_connections)
        self._cluster = RedisCluster(
            host=host,
            port=port,
            max_connections=max_connections,
            socket_timeout=self._timeout_s,
            socket_connect_timeout=self._timeout_s,
            retry=NO_RETRY,
            ssl=with_tls,
            driver_info=None,
            maint_notifications_config=MaintNotificationsConfig(enabled=False),
            **arguments,
            **self._security.credentials(),
        )
        if with_tls:
            # RedisCluster has no argument for it; servers that are found later are made from connection_kwargs.
            kind = self._security.connection_class()
            self._cluster.connection_kwargs["connection_class"] = kind
            for node in self._cluster.startup_nodes:
                node.connection_class = kind

    async def close(self) -> None:
        """Closes all connections."""
        await self._cluster.aclose()

    async def _command(self, command: Command) -> Any:
        """Sends one command to the server of its keys, or to any if it has none."""
        async with self._place():
            return await self._cluster.execute_command(*command)

    async def _on_failure(self, _: Exception) -> None:
        """Looks which server has what by now: moved slots and lost servers are found out by failing."""
        try:
            await self._cluster.nodes_manager.initialize()
        except (exceptions.RedisError, exceptions.RedisClusterException, OSError) as error:
            _log.info("cluster_layout_unknown", reason=describe(error))  # the next try fails, and says why

    async def new_connections(self) -> list[AbstractConnection]:
        """Returns a connection to each master, as `RedisLink.new_connections`."""
        async with self._translated():
            await self._cluster.initialize()
        return [
            node.connection_class(**{**node.connection_kwargs, "protocol": 2}) for node in self._cluster.get_primaries()
        ]

    async def _open_lines(self) -> None:
        pass

    def layout(self) -> object:
        """Returns which master has which slots, as far as it is known."""
        slots = self._cluster.nodes_manager.slots_cache
        return {slot: nodes[0].name for slot, nodes in slots.items()}

    async def _values(self, keys: Sequence[bytes], began: float) -> list[bytes | None]:
        places: dict[bytes, list[int]] = {}
        for place, key in enumerate(keys):
            places.setdefault(_tag(key), []).append(place)
        reads: list[Command] = [("MGET", *(keys[place] for place in group)) for group in places.values()]
        values: list[bytes | None] = [None] * len(keys)
        answers = await self._tried(lambda: self._pipeline(reads, 0), "pipeline", began)
        for group, found in zip(places.values(), answers, strict=True):
            for place, value in zip(group, found, strict=True):
                values[place] = value
        return values

    async def _pipeline(self, commands: Sequence[Command], num_replicas: int) -> list[Any]:
        await self._cluster.initialize()
        pipeline = self._cluster.pipeline()
        written: dict[str, ClusterNode] = {}
        for command in commands:
            pipeline.execute_command(*command)
            if num_replicas and command[0] not in _READS:
                node = self._master_of(command)
                written[node.name] = node
        # On the connection that wrote: a pipeline has one to each server.
        for node in written.values():
            pipeline.execute_command("WAIT", num_replicas, self._wait_ms(), target_nodes=node)
        async with self._place():
            # A write that was redirected is not one that its connection's WAIT vouches for.
            answers: list[Any] = await pipeline.execute(allow_redirections=not written)
        if written:
            self._require_replicas(answers[len(commands) :])
            self._require_same_masters(commands, set(written))
        return answers[: len(commands)]

    @asynccontextmanager
    async def _place(self) -> AsyncIterator[None]:
        async with self._places:
            with hung_up():
                yield

    def _master_of(self, command: Command) -> ClusterNode:
        slot = self._cluster.keyslot(command[3 if command[0] == "EVAL" else 1])
        node: ClusterNode = self._cluster.nodes_manager.get_node_from_slot(slot)
        return node

    def _require_same_masters(self, commands: Sequence[Command], written: set[str]) -> None:
        """Refuses a write whose slots moved meanwhile: the servers that were waited for may not be those that wrote."""
        if {self._master_of(command).name for command in commands if command[0] not in _READS} != written:
            raise Unavailable(
                "slots of the Redis cluster are moving; repeat the write", reason="NOT_REPLICATED", retry_after_s=0.5
            )


def _tag(key: bytes) -> bytes:
    return key[: key.index(b"}")]
