"""Asks for many ratings in one call. Knows PredictRating and BatchPredictRatings; decides nothing about when."""

import asyncio
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import grpc
from marquee.client.answering import answer, left_s, refusal, reply_of
from marquee.client.answers import Prediction, read_prediction, source_of
from marquee.client.coalescing import Question
from marquee.client.errors import CallError
from marquee.v1 import model_service_pb2 as pb

if TYPE_CHECKING:
    from marquee.v1.model_service_pb2_grpc import ModelServiceAsyncStub


@dataclass(frozen=True, slots=True)
class RatingQuestion:
    """What would this user rate this movie, from a state that is not older than this version ("": any)?"""

    user_id: str
    movie_id: str
    min_user_version: str


@dataclass(frozen=True, slots=True)
class RatingKind:
    """What is alike in ratings that share a call: the serialised ModelSelector (b"": none), and what is told."""

    model: bytes
    with_stddev: bool


class RatingCalls:
    """Makes calls for ratings."""

    def __init__(self, stub: "ModelServiceAsyncStub") -> None:
        self._stub = stub

    async def send(self, kind: Hashable, questions: Sequence[Question[RatingQuestion, Prediction]]) -> None:
        """Asks some questions of one kind in one call.

        Raises:
            CallError: The call failed, for all of them alike.
        """
        assert isinstance(kind, RatingKind)
        if len(questions) == 1:
            answer(questions[0], await self._single_rating(kind, questions[0]))
            return
        versions: dict[str, str] = {}
        together: list[Question[RatingQuestion, Prediction]] = []
        apart: list[Question[RatingQuestion, Prediction]] = []
        for question in questions:
            wanted = question.asked.min_user_version
            # A call names one version a user: who wants another one of the same user is asked for by himself.
            (together if versions.setdefault(question.asked.user_id, wanted) == wanted else apart).append(question)
        asked = [self._ratings_together(kind, together, versions)]
        asked += [self._rating_apart(kind, question) for question in apart]
        await asyncio.gather(*asked)

    async def _ratings_together(
        self, kind: RatingKind, questions: Sequence[Question[RatingQuestion, Prediction]], versions: dict[str, str]
    ) -> None:
        users = {user_id: place for place, user_id in enumerate(versions)}
        movies: dict[str, int] = {}
        for question in questions:
            movies.setdefault(question.asked.movie_id, len(movies))
        request = pb.BatchPredictRatingsRequest(
            user_ids=list(users),
            movie_ids=list(movies),
            user_indices=[users[question.asked.user_id] for question in questions],
            movie_indices=[movies[question.asked.movie_id] for question in questions],
            model=_model_of(kind.model),
            min_user_versions=list(versions.values()) if any(versions.values()) else [],
            with_stddev=kind.with_stddev,
        )
        timeout_s = left_s(max(question.deadline for question in questions))
        try:
            reply = await reply_of(self._stub.BatchPredictRatings(request, timeout=timeout_s))
        except CallError as error:
            if error.code is not grpc.StatusCode.INVALID_ARGUMENT:
                raise
            # Somebody's question is wrong. Each learns about his own.
            await asyncio.gather(*(self._rating_apart(kind, question) for question in questions))
            return
        for place, question in enumerate(questions):
            refused = refusal(reply.statuses[place], question.asked.movie_id)
            if refused is not None:
                answer(question, refused)
                continue
            user = request.user_indices[place]
            answer(
                question,
                Prediction(
                    reply.ratings[place],
                    reply.rounded_ratings[place],
                    reply.scores[place],
                    source_of(reply.sources[user]),
                    reply.cold[request.movie_indices[place]],
                    reply.num_ratings[user],
                    reply.user_model_versions[user] if reply.user_model_versions else reply.model_version,
                    reply.user_versions[user],
                    reply.stddevs[place] if reply.stddevs else None,
                ),
            )

    async def _rating_apart(self, kind: RatingKind, question: Question[RatingQuestion, Prediction]) -> None:
        try:
            answer(question, await self._single_rating(kind, question))
        except CallError as error:
            answer(question, error)

    async def _single_rating(self, kind: RatingKind, question: Question[RatingQuestion, Prediction]) -> Prediction:
        asked = question.asked
        user = pb.UserSelector(user_id=asked.user_id, min_user_version=asked.min_user_version)
        request = pb.PredictRatingRequest(user=user, movie_id=asked.movie_id, model=_model_of(kind.model))
        timeout_s = left_s(question.deadline)
        return read_prediction(await reply_of(self._stub.PredictRating(request, timeout=timeout_s)))


def _model_of(serialised: bytes) -> pb.ModelSelector | None:
    return pb.ModelSelector.FromString(serialised) if serialised else None
