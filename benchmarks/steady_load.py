"""Asks for ratings at a steady rate, whether answered or not, from a process of its own. Knows PredictRating.

An open loop: a question leaves when it is due, and its latency counts from then, so that a server that stalls is not
spared the questions that a waiting caller would not have asked.
"""

import asyncio
import gc
import multiprocessing
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection

import grpc.aio
import numpy as np
import uvloop
from marquee.client.channel import channel_options
from marquee.v1 import model_service_pb2 as pb
from marquee.v1.model_service_pb2_grpc import ModelServiceStub
from numpy.typing import NDArray

_CONNECTIONS = 8


@dataclass(frozen=True, slots=True)
class SteadyLoad:
    """What is asked how often.

    Attributes:
        address: host:port.
        pairs: User and movie ids, asked in turn.
        per_s: Questions a second.
        seconds: How long at most.
        timeout_s: How long each may take.
    """

    address: str
    pairs: Sequence[tuple[str, str]]
    per_s: float
    seconds: float
    timeout_s: float = 10.0


@dataclass(frozen=True, slots=True)
class SteadyAnswers:
    """What came of it; question number n was about pair n modulo their number. Times are of `time.monotonic`.

    Attributes:
        due_s: When each question was due. float64 [N]
        asked_s: When it left. float64 [N]
        answered_s: When its answer came; NaN if none did. float64 [N]
        version: Which version answered, by its place in `versions`; -1 if none did. int32 [N]
        score: What it answered; NaN if it did not. float32 [N]
        versions: Names of versions, in the order in which they first answered.
        failures: Statuses of what was not answered.
    """

    due_s: NDArray[np.float64]
    asked_s: NDArray[np.float64]
    answered_s: NDArray[np.float64]
    version: NDArray[np.int32]
    score: NDArray[np.float32]
    versions: list[str]
    failures: Counter[str]

    @property
    def latencies_ms(self) -> NDArray[np.float64]:
        """Of each question since it was due; NaN if it was not answered. float64 [N]."""
        return (self.answered_s - self.due_s) * 1000


class SteadyCaller:
    """A process that asks while its `with` block goes on with other things; `answers` ends it."""

    def __init__(self, load: SteadyLoad) -> None:
        self._ours, theirs = multiprocessing.Pipe()
        context = multiprocessing.get_context("spawn")
        self._process = context.Process(target=_run, args=(load, theirs), daemon=True)

    def __enter__(self) -> "SteadyCaller":
        self._process.start()
        if self._ours.recv() != "asking":
            raise RuntimeError("the caller did not begin")
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.join()

    def answers(self) -> SteadyAnswers:
        """Asks no more, and returns what came of it."""
        self._ours.send("enough")
        answers = self._ours.recv()
        assert isinstance(answers, SteadyAnswers)
        return answers


def _run(load: SteadyLoad, pipe: Connection) -> None:
    pipe.send(uvloop.run(_ask(load, pipe)))


async def _ask(load: SteadyLoad, pipe: Connection) -> SteadyAnswers:
    options = [*channel_options(), ("grpc.use_local_subchannel_pool", 1)]
    channels = [grpc.aio.insecure_channel(load.address, options=options) for _ in range(_CONNECTIONS)]
    stubs = [ModelServiceStub(channel) for channel in channels]
    requests = [
        pb.PredictRatingRequest(user=pb.UserSelector(user_id=user), movie_id=movie) for user, movie in load.pairs
    ]
    await asyncio.gather(*(stub.PredictRating(requests[0], timeout=30) for stub in stubs))
    # Arrays, made before the clock runs: a list that grows to millions is looked through by the collector of garbage.
    size = int(load.per_s * load.seconds)
    asked_s, answered_s = (np.full(size, np.nan) for _ in range(2))
    version, score = np.full(size, -1, np.int32), np.full(size, np.nan, np.float32)
    places: dict[str, int] = {}
    failures: Counter[str] = Counter()
    gc.collect()
    gc.freeze()
    pipe.send("asking")
    began = time.monotonic()

    async def ask(number: int) -> None:
        asked_s[number] = time.monotonic()
        question = requests[number % len(requests)]
        try:
            answer = await stubs[number % _CONNECTIONS].PredictRating(question, timeout=load.timeout_s)
        except grpc.aio.AioRpcError as error:
            failures[error.code().name] += 1
            return
        answered_s[number] = time.monotonic()
        version[number] = places.setdefault(answer.model_version, len(places))
        score[number] = answer.score

    asked: set[asyncio.Task[None]] = set()
    number = 0
    while number < size and not pipe.poll():
        wait_s = began + number / load.per_s - time.monotonic()
        if wait_s > 0:
            await asyncio.sleep(wait_s)
        task = asyncio.create_task(ask(number))
        asked.add(task)
        task.add_done_callback(asked.discard)
        number += 1
    if asked:
        await asyncio.wait(asked)
    await asyncio.gather(*(channel.close() for channel in channels))
    due_s = began + np.arange(number) / load.per_s
    until = slice(0, number)
    return SteadyAnswers(due_s, asked_s[until], answered_s[until], version[until], score[until], list(places), failures)
