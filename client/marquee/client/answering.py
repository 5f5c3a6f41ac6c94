"""Makes a call and hands each answer to who asked. Knows statuses of rows; knows no kind of question."""

import time
from collections.abc import Awaitable
from typing import Any, TypeVar

import grpc
import grpc.aio
from marquee.client.coalescing import Question
from marquee.client.errors import CallError, read_error
from marquee.v1 import model_service_pb2 as pb

_Reply = TypeVar("_Reply")
_Answer = TypeVar("_Answer")


def left_s(deadline: float) -> float:
    """Returns the seconds that are left, 0 if none are."""
    return max(0.0, deadline - time.monotonic())


async def reply_of(call: Awaitable[_Reply]) -> _Reply:
    """Returns what a call is answered.

    Raises:
        CallError: What it failed with.
    """
    try:
        return await call
    except grpc.aio.AioRpcError as error:
        raise read_error(error) from error


def answer(question: Question[Any, _Answer], answered: _Answer | CallError) -> None:
    """Hands an answer, or why there is none, to who asked, if he still waits."""
    if question.answer.done():
        return
    if isinstance(answered, CallError):
        question.answer.set_exception(answered)
    else:
        question.answer.set_result(answered)


def refusal(status: int, movie_id: str) -> CallError | None:
    """Returns what a single call would have failed with."""
    if status == pb.ROW_STATUS_OK:
        return None
    if status == pb.ROW_STATUS_MOVIE_NOT_FOUND:
        return CallError.of(
            grpc.StatusCode.NOT_FOUND, f"no movie {movie_id!r}", reason="MOVIE_NOT_FOUND", missing_ids=[movie_id]
        )
    if status == pb.ROW_STATUS_USER_NOT_CURRENT:
        return CallError.of(
            grpc.StatusCode.UNAVAILABLE, "the user's state is older than min_user_version", reason="USER_NOT_CURRENT"
        )
    return CallError.of(
        grpc.StatusCode.FAILED_PRECONDITION,
        "min_user_version is malformed, of another user, or of a store that was replaced since",
        reason="FOREIGN_USER_VERSION",
    )
