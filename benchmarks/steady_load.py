"""Asks for ratings at a steady rate, whether answered or not, from a process of its own. Knows PredictRating.

An open loop: a question leaves when it is due, and its latency counts from then, so that a server that stalls is not
spared the questions that a waiting caller would not have asked.
"""

import asyncio
import multiprocessing
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

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
        seconds: How long.
        timeout_s: How long each may take.
    """

    address: str
    pairs: Sequence[tuple[str, str]]
    per_s: float
    seconds: float
    timeout_s: float = 5.0


@dataclass(slots=True)
class SteadyAnswers:
    """What came of it.

    Attributes:
        due_s: When each answered question was due, in seconds since the beginning. float64 [count]
        latencies_ms: Of each, since it was due. float64 [count]
        scores: Scores that were answered, by model version and place of the pair: one each, if all is well.
        failures: Statuses of what was not answered.
    """

    due_s: NDArray[np.float64]
    latencies_ms: NDArray[np.float64]
    scores: dict[tuple[str, int], set[float]] = field(default_factory=dict)
    failures: Counter[str] = field(default_factory=Counter)


class SteadyCaller:
    """A process that asks while its `with` block goes on with other things; `answers` waits for its end."""

    def __init__(self, load: SteadyLoad) -> None:
        self._ours, theirs = multiprocessing.Pipe()
        context = multiprocessing.get_context("spawn")
        self._process = context.Process(target=_run, args=(load, theirs), daemon=True)

    def __enter__(self) -> "SteadyCaller":
        self._process.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.join()

    def answers(self) -> SteadyAnswers:
        """Returns what came of it, once it is over."""
        answers = self._ours.recv()
        assert isinstance(answers, SteadyAnswers)
        return answers


def _run(load: SteadyLoad, pipe: "multiprocessing.connection.Connection") -> None:
    pipe.send(uvloop.run(_ask(load)))


async def _ask(load: SteadyLoad) -> SteadyAnswers:
    options = [*channel_options(), ("grpc.use_local_subchannel_pool", 1)]
    channels = [grpc.aio.insecure_channel(load.address, options=options) for _ in range(_CONNECTIONS)]
    stubs = [ModelServiceStub(channel) for channel in channels]
    requests = [
        pb.PredictRatingRequest(user=pb.UserSelector(user_id=user), movie_id=movie) for user, movie in load.pairs
    ]
    await asyncio.gather(*(stub.PredictRating(requests[0], timeout=30) for stub in stubs))
    due, latencies = [], []
    answers = SteadyAnswers(np.zeros(0), np.zeros(0))
    began = time.perf_counter()

    async def ask(number: int, due_s: float) -> None:
        place = number % len(requests)
        try:
            answer = await stubs[number % _CONNECTIONS].PredictRating(requests[place], timeout=load.timeout_s)
        except grpc.aio.AioRpcError as error:
            answers.failures[error.code().name] += 1
            return
        due.append(due_s)
        latencies.append((time.perf_counter() - began - due_s) * 1000)
        answers.scores.setdefault((answer.model_version, place), set()).add(round(answer.score, 4))

    asked: set[asyncio.Task[None]] = set()
    for number in range(int(load.per_s * load.seconds)):
        due_s = number / load.per_s
        if (wait_s := began + due_s - time.perf_counter()) > 0:
            await asyncio.sleep(wait_s)
        task = asyncio.create_task(ask(number, due_s))
        asked.add(task)
        task.add_done_callback(asked.discard)
    if asked:
        await asyncio.wait(asked)
    answers.due_s, answers.latencies_ms = np.array(due), np.array(latencies)
    await asyncio.gather(*(channel.close() for channel in channels))
    return answers
