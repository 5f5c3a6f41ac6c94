"""Asks for the lists of many users in one call. Knows TopK and BatchTopK; decides nothing about when."""

import asyncio
from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING

import grpc
from marquee.client.answering import answer, left_s, refusal, reply_of
from marquee.client.answers import Recommendations, read_recommendations
from marquee.client.coalescing import Question
from marquee.client.errors import CallError
from marquee.v1 import model_service_pb2 as pb
from marquee.v1 import movie_pb2

if TYPE_CHECKING:
    from marquee.v1.model_service_pb2_grpc import ModelServiceAsyncStub

_MAX_RANKED = 20_000
_MAX_RANKED_AT_LENGTH = 1000
"""What one BatchTopK may answer, without and with titles."""


def list_kind(request: pb.TopKRequest) -> bytes:
    """Returns all of a request but its user: lists of one kind may share a call."""
    rest = pb.TopKRequest()
    rest.CopyFrom(request)
    rest.ClearField("user")
    return rest.SerializeToString(deterministic=True)


class ListCalls:
    """Makes calls for lists."""

    def __init__(self, stub: "ModelServiceAsyncStub") -> None:
        self._stub = stub

    async def send(self, kind: Hashable, questions: Sequence[Question[pb.TopKRequest, Recommendations]]) -> None:
        """Asks for some lists of one kind in as few calls as their length allows; each gets his own failure."""
        first = questions[0].asked
        at_length = first.view == movie_pb2.MOVIE_VIEW_MOVIE
        most = max(1, (_MAX_RANKED_AT_LENGTH if at_length else _MAX_RANKED) // max(1, first.k))
        parts = [questions[start : start + most] for start in range(0, len(questions), most)]
        await asyncio.gather(*(self._lists_together(part) for part in parts))

    async def _lists_together(self, questions: Sequence[Question[pb.TopKRequest, Recommendations]]) -> None:
        if len(questions) == 1:
            await self._list_apart(questions[0])
            return
        first = questions[0].asked
        request = pb.BatchTopKRequest(
            users=[question.asked.user for question in questions],
            k=first.k,
            filter=first.filter,
            exclude_seen=first.exclude_seen if first.HasField("exclude_seen") else None,
            view=first.view,
            model=first.model if first.HasField("model") else None,
            diversity=first.diversity,
        )
        timeout_s = left_s(max(question.deadline for question in questions))
        try:
            reply = await reply_of(self._stub.BatchTopK(request, timeout=timeout_s))
        except CallError as error:
            if error.code is not grpc.StatusCode.INVALID_ARGUMENT:
                for question in questions:
                    answer(question, error)
            else:
                await asyncio.gather(*(self._list_apart(question) for question in questions))
            return
        for question, row in zip(questions, reply.results, strict=True):
            refused = refusal(row.status, "")
            answer(question, refused or read_recommendations(row, row.model_version or reply.model_version))

    async def _list_apart(self, question: Question[pb.TopKRequest, Recommendations]) -> None:
        try:
            timeout_s = left_s(question.deadline)
            reply = await reply_of(self._stub.TopK(question.asked, timeout=timeout_s))
            answer(question, read_recommendations(reply, reply.model_version))
        except CallError as error:
            answer(question, error)
