"""Callers who never pause: one with the retry policy that the contract documents, one who asks each thing once."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from functools import partial

import grpc
import grpc.aio
from marquee.client.channel import open_channel
from marquee.v1 import feature_service_pb2 as fpb
from marquee.v1 import feature_service_pb2_grpc, model_service_pb2_grpc
from marquee.v1 import model_service_pb2 as mpb

from tests.feature_service import messages as make
from tests.proxy.haproxy import Proxy

K = 5
# In all, so that the machine has time for the services.
_PAUSE_S = 0.01
_TIMEOUT_S = 60.0


class Caller:
    """Asks both services in turn through a proxy.

    Attributes:
        ended: Calls that were made, by RPC and status.
        texts: What the failures said.
        written: Movies of events that were acknowledged, by user.
    """

    def __init__(self, name: str, proxy: Proxy, movie_ids: Sequence[str], *, retries: bool) -> None:
        """Stores what to ask."""
        self._name = name
        self._proxy = proxy
        self._movie_ids = movie_ids
        self._options = [] if retries else [("grpc.enable_retries", 0)]
        self.ended: Counter[tuple[str, str]] = Counter()
        self.texts: list[str] = []
        self.written: dict[str, set[str]] = {}

    @property
    def num_calls(self) -> int:
        """How many calls were made."""
        return self.ended.total()

    @property
    def failures(self) -> dict[tuple[str, str], int]:
        """The calls that did not end well, by RPC and status."""
        return {kind: number for kind, number in self.ended.items() if kind[1] != "OK"}

    async def run(self, stop: asyncio.Event) -> None:
        """Asks until told to stop."""
        async with (
            open_channel(self._proxy.features, options=self._options) as to_features,
            open_channel(self._proxy.models, options=self._options) as to_models,
        ):
            features = feature_service_pb2_grpc.FeatureServiceStub(to_features)
            models = model_service_pb2_grpc.ModelServiceStub(to_models)
            turn = 0
            while not stop.is_set():
                turn += 1
                await self._ask("TopK", partial(self._top_k, models))
                await self._ask("BatchGetUsers", partial(self._read, features))
                await self._ask("WriteEvents", partial(self._write, features, turn))
                await asyncio.sleep(_PAUSE_S)

    async def _ask(self, rpc: str, call: Callable[[], Awaitable[None]]) -> None:
        try:
            await call()
            self.ended[rpc, "OK"] += 1
        except grpc.aio.AioRpcError as error:
            self.ended[rpc, error.code().name] += 1
            self.texts.append(f"{rpc}: {error.code().name}: {error.details()}")

    async def _top_k(self, models: "model_service_pb2_grpc.ModelServiceAsyncStub") -> None:
        user = mpb.UserSelector(user_id=f"{self._name}-reader")
        reply = await models.TopK(mpb.TopKRequest(user=user, k=K), timeout=_TIMEOUT_S)
        assert len(reply.movies) == K

    async def _read(self, features: "feature_service_pb2_grpc.FeatureServiceAsyncStub") -> None:
        reply = await features.BatchGetUsers(make.users(f"{self._name}-reader"), timeout=_TIMEOUT_S)
        assert len(reply.users) == 1

    async def _write(self, features: "feature_service_pb2_grpc.FeatureServiceAsyncStub", turn: int) -> None:
        user_id = f"{self._name}-{turn // len(self._movie_ids)}"
        movie_id = self._movie_ids[turn % len(self._movie_ids)]
        event = make.event(f"{turn}", user_id, movie_id, 4.0, 1_600_000_000_000 + turn)
        reply = await features.WriteEvents(make.write(event), timeout=_TIMEOUT_S)
        # DUPLICATE: an attempt that was cut off had got through.
        assert reply.results[0].status in (fpb.EVENT_STATUS_APPLIED, fpb.EVENT_STATUS_DUPLICATE)
        self.written.setdefault(user_id, set()).add(movie_id)
