"""Writes events as a careful caller does: again until each is acknowledged. Knows the contract; knows no Redis."""

import asyncio
import random
from collections import Counter
from collections.abc import Sequence

import grpc
from marquee.client.channel import open_channel
from marquee.v1 import feature_service_pb2 as pb2
from marquee.v1 import feature_service_pb2_grpc

from tests.feature_service import messages as make

NUM_MOVIES = 300
_EVENTS_PER_CALL = 50
_EVENTS_PER_SITTING = 5
_EVENTS_PER_USER = 25
# Of whom the store has to forget: more movies than a history keeps.
_NUM_HEAVY = 2
_HEAVY_SHARE = 0.05
_NUM_WRITERS = 12
_CALL_TIMEOUT_S = 5.0
_SECOND_DELIVERIES = 0.1
_GIVE_UP_AFTER_S = 120.0
# What a caller is told to repeat; anything else fails the test.
REPEATED = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)

Call = Sequence[pb2.Event]


def make_calls(rng: random.Random, num_events: int) -> list[Call]:
    """Returns calls of events, some of each user, in no order of time; some are of a movie that he watched before."""
    num_users = max(1, num_events // _EVENTS_PER_USER)
    events = []
    user_id = ""
    for number in range(num_events):
        if number % _EVENTS_PER_SITTING == 0:
            heavy = rng.random() < _HEAVY_SHARE
            user_id = f"heavy {rng.randrange(_NUM_HEAVY)}" if heavy else f"user {rng.randrange(num_users)}"
        rating = rng.choice([None, *(stars / 2 for stars in range(1, 11))])
        time_ms = 1_600_000_000_000 + rng.randrange(10**10)
        events.append(make.event(f"e{number}", user_id, f"m{rng.randrange(NUM_MOVIES)}", rating, time_ms))
    return [events[first : first + _EVENTS_PER_CALL] for first in range(0, num_events, _EVENTS_PER_CALL)]


class Load:
    """Writers at once, each of which repeats a call until it is acknowledged, and now and then one that was."""

    def __init__(self, address: str, calls: Sequence[Call], rng: random.Random) -> None:
        """Stores what to write where."""
        self._address = address
        self._left = list(reversed(calls))
        self._rng = rng
        self._moved = asyncio.Condition()
        self.acknowledged: list[pb2.Event] = []
        self.failures: Counter[str] = Counter()

    async def run(self) -> None:
        """Writes everything. Raises `AioRpcError` if a call fails in a way that callers are not told to repeat."""
        async with open_channel(self._address) as channel:
            stub = feature_service_pb2_grpc.FeatureServiceStub(channel)
            await asyncio.gather(*(self._write(stub) for _ in range(_NUM_WRITERS)))

    async def until(self, num_acknowledged: int) -> None:
        """Waits until so many events are acknowledged."""
        async with self._moved, asyncio.timeout(_GIVE_UP_AFTER_S):
            await self._moved.wait_for(lambda: len(self.acknowledged) >= num_acknowledged)

    async def _write(self, stub: "feature_service_pb2_grpc.FeatureServiceAsyncStub") -> None:
        while self._left:
            call = self._left.pop()
            await self._until_acknowledged(stub, call)
            async with self._moved:
                self.acknowledged += call
                self._moved.notify_all()
            if self._rng.random() < _SECOND_DELIVERIES:
                await self._until_acknowledged(stub, call)

    async def _until_acknowledged(self, stub: "feature_service_pb2_grpc.FeatureServiceAsyncStub", call: Call) -> None:
        async with asyncio.timeout(_GIVE_UP_AFTER_S):
            while True:
                try:
                    reply = await stub.WriteEvents(make.write(*call), timeout=_CALL_TIMEOUT_S)
                except grpc.aio.AioRpcError as error:
                    if error.code() not in REPEATED:
                        raise
                    self.failures[error.code().name] += 1
                    await asyncio.sleep(self._rng.uniform(0.02, 0.2))
                else:
                    assert all(result.status != pb2.EVENT_STATUS_REFUSED for result in reply.results)
                    return
