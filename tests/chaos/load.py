"""Asks and writes at a steady pace whatever happens, and judges each answer. Knows the contract; knows no fault."""

import asyncio
import itertools
import math
import time
import uuid
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from types import TracebackType
from typing import Any

import grpc
from marquee.client.channel import open_channel
from marquee.client.errors import CallError, read_error
from marquee.client.model_client import ModelClient
from marquee.v1 import feature_service_pb2 as fpb
from marquee.v1 import feature_service_pb2_grpc

from tests.chaos.statuses import documented_reasons, is_documented
from tests.chaos.truth import K, Truth
from tests.feature_service import messages as make

DEADLINE_S = 2.0
# An answer that comes later than this after the deadline was never going to come: the machine may be busy with others.
HANGS_AFTER_S = 10.0
_INTERVAL_S = 0.04
_PATIENCE_S = 120.0
_WELL_ANSWERS = 5
_USERS_A_READ = 5
_USERS_AN_AUDIT = 100
_WRITES_A_LOOK = 2
_RATED_AT_MS = 1_600_000_000_000

Question = Callable[[], Coroutine[Any, Any, None]]


class WrongAnswerError(Exception):
    """An answer that is not the right one."""


class Load:
    """Steady load; `async with`. What cannot be counted as answered or as refused with a documented status is lost.

    Attributes:
        sent: Requests that were sent.
        answered: Requests that were answered rightly.
        refused: Requests that were refused with a documented status, by code and reason.
        lost: What became of each other request.
        latest_s: How long the slowest right answer took.
    """

    def __init__(self, features_address: str, model_address: str, truth: Truth) -> None:
        """Stores whom to ask, and what the answers are."""
        self.sent = 0
        self.answered = 0
        self.refused: Counter[str] = Counter()
        self.lost: list[str] = []
        self.latest_s = 0.0
        self._features_address = features_address
        self._model_address = model_address
        self._truth = truth
        self._reasons = documented_reasons()
        self._acknowledged: list[tuple[str, str]] = []
        self._in_a_row: Counter[str] = Counter()
        self._moved = asyncio.Condition()
        self._under_way: set[asyncio.Task[bool]] = set()
        self._questions: dict[str, Question] = {
            "rating": self._rate,
            "list": self._list,
            "read": self._read,
            "write": self._write,
        }

    async def __aenter__(self) -> "Load":
        """Begins; returns once all is answered."""
        self._channel = open_channel(self._features_address)
        self._features = feature_service_pb2_grpc.FeatureServiceStub(self._channel)
        self._model = ModelClient(self._model_address, timeout_s=DEADLINE_S)
        self._pairs = itertools.cycle(self._truth.ratings)
        self._movies = itertools.cycle(self._truth.movie_ids)
        self._ticking = asyncio.create_task(self._tick())
        await self.until_well()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Ends, and lets go of what is under way."""
        for task in (self._ticking, *self._under_way):
            task.cancel()
        await asyncio.gather(self._ticking, *self._under_way, return_exceptions=True)
        await self._model.close()
        await self._channel.close()

    async def finish(self) -> None:
        """Sends no more, waits for what is under way, and looks whether all that was acknowledged is there."""
        self._ticking.cancel()
        await asyncio.gather(self._ticking, return_exceptions=True)
        await asyncio.gather(*self._under_way)
        for first in range(0, len(self._acknowledged), _USERS_AN_AUDIT):
            await self._audit(self._acknowledged[first : first + _USERS_AN_AUDIT])

    async def until(self, condition: Callable[[], bool], what: str) -> None:
        """Waits until the counts say something."""
        try:
            async with self._moved, asyncio.timeout(_PATIENCE_S):
                await self._moved.wait_for(condition)
        except TimeoutError:
            raise AssertionError(f"{what}: not within {_PATIENCE_S:g} s; {self.counts()}") from None

    async def until_refused(self, status: str, times: int = 1) -> None:
        """Waits until so many more requests were refused with a status, named by its reason, or code without one."""
        wanted = self.refused[status] + times
        await self.until(lambda: self.refused[status] >= wanted, f"refused with {status}")

    async def until_answered(self, times: int) -> None:
        """Waits until so many more requests were answered."""
        wanted = self.answered + times
        await self.until(lambda: self.answered >= wanted, f"{times} answered")

    async def until_well(self) -> None:
        """Waits until every kind of request is answered, several times in a row."""
        self._in_a_row.clear()
        await self.until(
            lambda: all(self._in_a_row[kind] >= _WELL_ANSWERS for kind in self._questions), "all is answered"
        )

    def count_answered(self, times: int) -> None:
        """Counts requests of others that were answered."""
        self.sent += times
        self.answered += times

    def count_refused(self, kind: str, error: CallError, times: int) -> None:
        """Counts requests of others that failed alike."""
        self.sent += times
        for _ in range(times):
            self._note_failure(kind, error)

    def noticed(self) -> Counter[str]:
        """Returns what was refused for another reason than time: on a busy machine deadlines pass by themselves."""
        return self.refused - Counter({"DEADLINE_EXCEEDED": self.refused["DEADLINE_EXCEEDED"]})

    def counts(self) -> str:
        """Returns the counts for a person."""
        return f"sent {self.sent}, answered {self.answered}, refused {dict(self.refused)}, lost {self.lost[:5]}"

    async def _tick(self) -> None:
        """Sends one request after the other at its time, however long earlier ones take."""
        began = time.monotonic()
        for number, kind in enumerate(itertools.cycle(self._questions)):
            await asyncio.sleep(began + number * _INTERVAL_S - time.monotonic())
            task = asyncio.create_task(self.judge(kind, self._questions[kind]))
            self._under_way.add(task)
            task.add_done_callback(self._under_way.discard)

    async def judge(self, kind: str, question: Question) -> bool:
        """Asks one question more and counts what becomes of it; returns whether it was answered rightly.

        Args:
            kind: What it is, for a person.
            question: Asks with a deadline of `DEADLINE_S`; raises `CallError` or `WrongAnswerError`.
        """
        self.sent += 1
        is_answered = False
        began = time.monotonic()
        try:
            async with asyncio.timeout(DEADLINE_S + HANGS_AFTER_S):
                await question()
        except WrongAnswerError as error:
            self._lose(kind, f"wrong: {error}")
        except TimeoutError:
            self._lose(kind, f"no answer {HANGS_AFTER_S:g} s after its deadline")
        except CallError as error:
            self._in_a_row[kind] = 0
            self._note_failure(kind, error)
        except grpc.aio.AioRpcError as error:
            self._in_a_row[kind] = 0
            self._note_failure(kind, read_error(error))
        else:
            is_answered = True
            self.answered += 1
            self._in_a_row[kind] += 1
            self.latest_s = max(self.latest_s, time.monotonic() - began)
        async with self._moved:
            self._moved.notify_all()
        return is_answered

    def _note_failure(self, kind: str, error: CallError) -> None:
        if is_documented(error, self._reasons):
            self.refused[error.reason or error.code.name] += 1
        else:
            self._lose(kind, f"not documented: {error}")

    def _lose(self, kind: str, what: str) -> None:
        self._in_a_row[kind] = 0
        self.lost.append(f"{kind}: {what}")

    async def _rate(self) -> None:
        user_id, movie_id = pair = next(self._pairs)
        answer = await self._model.predict_rating(user_id, movie_id)
        _expect(answer.model_version, self._truth.model_version, "version")
        if not math.isclose(answer.rating, self._truth.ratings[pair], abs_tol=1e-5):
            raise WrongAnswerError(f"{answer.rating} stars instead of {self._truth.ratings[pair]}")

    async def _list(self) -> None:
        user_id, _ = next(self._pairs)
        answer = await self._model.top_k(user_id, K)
        _expect(answer.model_version, self._truth.model_version, "version")
        _expect(answer.movie_ids, self._truth.lists[user_id], "list")

    async def _read(self) -> None:
        user_ids = [next(self._pairs)[0] for _ in range(_USERS_A_READ)]
        request = make.users(*user_ids, view=fpb.USER_VIEW_FULL)
        reply = await self._features.BatchGetUsers(request, timeout=DEADLINE_S)
        _expect(list(reply.users), [self._truth.users[user_id] for user_id in user_ids], "users")

    async def _write(self) -> None:
        """Writes what a new user watched; sometimes asks at once for a list that must lack it."""
        user_id, movie_id = f"chaos-{uuid.uuid4().hex}", next(self._movies)
        request = make.write(make.event(user_id, user_id, movie_id, 4.0, _RATED_AT_MS))
        (result,) = (await self._features.WriteEvents(request, timeout=DEADLINE_S)).results
        # Of a call that the channel repeated, the first may have been the one that counted.
        if result.status not in (fpb.EVENT_STATUS_APPLIED, fpb.EVENT_STATUS_DUPLICATE):
            raise WrongAnswerError(f"the event is {fpb.EventStatus.Name(result.status)}")
        self._acknowledged.append((user_id, movie_id))
        if len(self._acknowledged) % _WRITES_A_LOOK == 0:
            await self._look_at_own_write(user_id, movie_id, result.user_version)

    async def _look_at_own_write(self, user_id: str, movie_id: str, version: str) -> None:
        allowed = sorted({movie_id, *self._truth.movie_ids[:K]})
        answer = await self._model.top_k(user_id, K, allow=allowed, min_user_version=version)
        _expect(sorted(answer.movie_ids), sorted(set(allowed) - {movie_id})[:K], "list after a write")

    async def _audit(self, written: Sequence[tuple[str, str]]) -> None:
        request = make.users(*(user_id for user_id, _ in written))
        stored = (await self._features.BatchGetUsers(request, timeout=_PATIENCE_S)).users
        for (_, movie_id), user in zip(written, stored, strict=True):
            if [entry.movie_id for entry in user.history] != [movie_id]:
                self.lost.append("write: acknowledged and not there")


def _expect(found: object, expected: object, what: str) -> None:
    if found != expected:
        raise WrongAnswerError(f"{what} {found} instead of {expected}")
