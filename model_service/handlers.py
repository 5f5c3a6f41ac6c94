"""Answers the RPCs of ModelService: message in, task, answer, message out. Knows no tensor, no storage and no gRPC."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

from marquee.v1 import model_service_pb2

from model_service import answers, pieces, trials
from model_service.admission import Admission
from model_service.batcher import Batcher, ClosedError, ExpiredError
from model_service.field_rules import names_only
from model_service.generations import Generations
from model_service.near_answers import NearAnswers
from model_service.near_lists import NearLists
from model_service.near_pairs import NearPairs
from model_service.queries import Answer, RatingAnswer, RatingTask, SimilarAnswer, Task, TopKAnswer, TopKTask
from model_service.versions import Versions
from model_service.waiting_room import Priority, QueueFullError
from service_runtime.errors import DeadlineExceeded, ResourceExhausted, Unavailable
from service_runtime.server import Call

Request = TypeVar("Request")
_Kind = TypeVar("_Kind")


class ModelHandlers:
    """One method per RPC; `service_runtime.server` gives them messages and takes theirs."""

    def __init__(
        self,
        generations: Generations,
        versions: Versions,
        at_once: NearAnswers,
        near_pairs: NearPairs,
        near_lists: NearLists,
        batcher: Batcher[Task, Answer],
        *,
        max_batch_rows: int,
        max_bulk_rows: int,
        interactive_max_rows: int,
        default_timeout_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Stores what answers.

        Args:
            generations: What admission checks names against.
            versions: Chooses the model that answers.
            at_once: Answers what needs no batch.
            near_pairs: Answers likewise who asks for one rating.
            near_lists: Answers likewise who asks for one list, while there is company to wait for.
            batcher: The one scheduler of the device.
            max_batch_rows: Larger tasks are cut into pieces of so many users.
            max_bulk_rows: Tasks that give way are cut into pieces of so many.
            interactive_max_rows: Tasks of more users than this give way to smaller ones.
            default_timeout_s: How long a caller without a deadline is taken to wait.
            clock: Monotonic seconds.
        """
        self._generations = generations
        self._versions = versions
        self._at_once = at_once
        self._near_pairs = near_pairs
        self._near_lists = near_lists
        self._batcher = batcher
        self._max_rows = {Priority.INTERACTIVE: max_batch_rows, Priority.BULK: min(max_batch_rows, max_bulk_rows)}
        self._interactive_max_rows = interactive_max_rows
        self._default_timeout_s = default_timeout_s
        self._clock = clock

    async def predict_rating(
        self, request: model_service_pb2.PredictRatingRequest, call: Call
    ) -> model_service_pb2.PredictRatingResponse:
        """Predicts one rating."""
        version = self._chosen(request)
        if version is None and names_only(request.user):
            pair = await self._near_pairs.rate(request.user.user_id, request.movie_id, call.deadline)
            if pair is not None:
                return answers.rated_pair(pair)
        task = await self._admit(Admission.predict_rating, request, version, rates=True)
        return answers.predict_rating(_as(RatingTask, task), _as(RatingAnswer, await self._answer(task, call)))

    async def batch_predict_ratings(
        self, request: model_service_pb2.BatchPredictRatingsRequest, call: Call
    ) -> model_service_pb2.BatchPredictRatingsResponse:
        """Predicts many ratings."""
        version, trial = self._versions.choose_for(request.model, request.user_ids)
        admitted = await self._admit(Admission.batch_predict_ratings, request, version, rates=True)

        async def answered(task: RatingTask) -> model_service_pb2.BatchPredictRatingsResponse:
            answer = _as(RatingAnswer, await self._answer(task, call))
            return answers.batch_predict_ratings(request, task, answer)

        task = _as(RatingTask, admitted)
        if trial is None:
            return await answered(task)
        return trials.join_ratings(request, trial, *await asyncio.gather(*map(answered, trials.part(task, trial))))

    async def top_k(self, request: model_service_pb2.TopKRequest, call: Call) -> model_service_pb2.TopKResponse:
        """Recommends movies to one user."""
        task = await self._admit(Admission.top_k, request, self._chosen(request))
        answer = await self._near_lists.rank(_as(TopKTask, task), call.deadline)
        return answers.top_k(request, answer or _as(TopKAnswer, await self._answer(task, call)))

    async def batch_top_k(
        self, request: model_service_pb2.BatchTopKRequest, call: Call
    ) -> model_service_pb2.BatchTopKResponse:
        """Recommends movies to many users."""
        version, trial = self._versions.choose_for(request.model, [user.user_id for user in request.users])
        admitted = await self._admit(Admission.batch_top_k, request, version)

        async def answered(task: TopKTask) -> model_service_pb2.BatchTopKResponse:
            answer = _as(TopKAnswer, await self._answer(task, call))
            # 20,000 messages take longer to make than other callers should wait for the loop.
            return await asyncio.to_thread(answers.batch_top_k, request, answer)

        task = _as(TopKTask, admitted)
        if trial is None:
            return await answered(task)
        return trials.join_lists(trial, *await asyncio.gather(*map(answered, trials.part(task, trial))))

    async def similar_movies(
        self, request: model_service_pb2.SimilarMoviesRequest, call: Call
    ) -> model_service_pb2.SimilarMoviesResponse:
        """Finds the movies nearest to one movie."""
        task = await self._admit(Admission.similar_movies, request, self._versions.choose(request.model))
        return answers.similar_movies(request, _as(SimilarAnswer, await self._answer(task, call)))

    def _chosen(self, request: model_service_pb2.PredictRatingRequest | model_service_pb2.TopKRequest) -> str | None:
        return self._versions.choose(request.model, request.user.user_id)

    async def _admit(
        self,
        read: Callable[[Admission, Request], Task],
        request: Request,
        version: str | None,
        *,
        rates: bool = False,
    ) -> Task:
        """Reads a request; if it names what the known catalogue lacks, once more against the newest one."""
        admission = Admission(self._versions.generation(version))
        if rates:
            admission.require_ratings()
        task = read(admission, request)
        if admission.rules.is_behind:
            await self._generations.refresh()
            admission = Admission(self._versions.generation(version))
            task = read(admission, request)
        admission.require()
        return task if version is None else replace(task, model_version=version)

    async def _answer(self, task: Task, call: Call) -> Answer:
        if (answer := self._at_once.answer(task)) is not None:
            return answer
        deadline = call.deadline or self._clock() + self._default_timeout_s
        num_rows = pieces.rows_of(task)
        priority = Priority.INTERACTIVE if num_rows <= self._interactive_max_rows else Priority.BULK
        try:
            if num_rows <= self._max_rows[priority]:
                return await self._submit(task, num_rows, priority, deadline)
            parts = pieces.cut(task, self._max_rows[priority])
            if len(parts) > 1 and task.model_version is None:
                # One answer names one model, also if another begins to serve between two pieces.
                serving = self._versions.generation(None).checkpoint.version
                parts = [replace(part, model_version=serving) for part in parts]
            waiting = [asyncio.create_task(self._answer_piece(part, priority, deadline)) for part in parts]
            try:
                return pieces.join(task, await asyncio.gather(*waiting))
            finally:
                for each in waiting:
                    each.cancel()
        except QueueFullError as error:
            raise ResourceExhausted(
                "as many requests wait as the service can answer in time",
                reason="QUEUE_FULL",
                retry_after_s=error.retry_after_s,
            ) from error
        except ExpiredError as error:
            raise DeadlineExceeded() from error
        except ClosedError as error:
            raise Unavailable("the service is shutting down", reason="SHUTTING_DOWN", retry_after_s=1.0) from error

    async def _answer_piece(self, piece: Task, priority: Priority, deadline: float) -> Answer:
        if (answer := self._at_once.answer(piece)) is not None:
            return answer
        return await self._submit(piece, pieces.rows_of(piece), priority, deadline)

    async def _submit(self, task: Task, num_rows: int, priority: Priority, deadline: float) -> Answer:
        # A bulk request is held for nobody, whoever has to be read for it.
        num_far = self._at_once.num_far(task) if priority is Priority.INTERACTIVE else 0
        return await self._batcher.submit(task, num_rows, priority, deadline, num_far)


def _as(kind: type[_Kind], value: object) -> _Kind:
    if not isinstance(value, kind):
        raise TypeError(f"{type(value).__name__} where {kind.__name__} belongs")
    return value
