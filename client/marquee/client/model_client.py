"""Asks ModelService, many questions in few calls. Knows the contract; knows no server.

    async with ModelClient("localhost:50052") as model:
        prediction = await model.predict_rating("ann", "heat")
        page = await model.top_k("ann", k=10, genres_any=["Drama"])

What is asked at the same time about stored users travels together (`marquee.client.coalescing`), which costs a service
a fraction of what single calls do. Answers, errors and deadlines are as if each had been asked alone: a question that
is wrong fails nobody else's. The channel retries what is safe and spreads calls over replicas; see `open_channel`.
"""

import asyncio
import random
import time
from collections.abc import Hashable, Iterable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar, cast

import grpc
import grpc.aio
from marquee.client.answering import left_s, reply_of
from marquee.client.answers import Prediction, Recommendations, read_recommendations
from marquee.client.arguments import message_of, pairs_of, require_count, require_list, require_text, seconds
from marquee.client.channel import open_channel, without_timeouts
from marquee.client.coalescing import Coalescer, TooManyWaitingError
from marquee.client.errors import CallError
from marquee.client.list_calls import ListCalls, list_kind
from marquee.client.rating_calls import RatingCalls, RatingKind, RatingQuestion
from marquee.v1 import model_service_pb2 as pb
from marquee.v1 import movie_pb2
from marquee.v1.model_service_pb2_grpc import ModelServiceStub

if TYPE_CHECKING:
    from marquee.v1.model_service_pb2_grpc import ModelServiceAsyncStub

DEFAULT_TIMEOUT_S = 2.0
DEFAULT_CALLS_IN_FLIGHT = 2
DEFAULT_USERS_TOGETHER = 64
"""A call for more users than MODEL_INTERACTIVE_MAX_ROWS, which is 64 by default, gives way to smaller ones."""
_MAX_WAITING = 10_000
_CURRENT_TRIES = 4
_CURRENT_WAIT_S = 0.05

_Answer = TypeVar("_Answer")


class ModelClient:
    """A client of one model service, or of its replicas behind one target. One event loop; any number of tasks."""

    def __init__(
        self,
        target: str | grpc.aio.Channel,
        *,
        timeout_s: float = DEFAULT_TIMEOUT_S,
        calls_in_flight: int = DEFAULT_CALLS_IN_FLIGHT,
        users_together: int = DEFAULT_USERS_TOGETHER,
        rng: random.Random | None = None,
    ) -> None:
        """Stores whom to ask; the first question connects.

        Args:
            target: host:port or any gRPC target, for `open_channel`; or an open channel, which stays the caller's.
            timeout_s: How long a question may take that names no time of its own.
            calls_in_flight: Calls under way at a time; while they are, questions gather. More spread over more
                replicas, fewer gather more. One for each replica, and at least two, is right.
            users_together: Users in one call.
            rng: Varies the waits before another try; None: one of its own.

        Raises:
            TypeError: A setting is of another type.
            ValueError: With a setting like this nothing would ever be answered.
        """
        self._timeout_s = seconds("timeout_s", timeout_s)
        require_count("calls_in_flight", calls_in_flight)
        require_count("users_together", users_together)
        if isinstance(target, str):
            require_text("target", target)
        self._rng = rng or random.Random()
        self._owned = open_channel(target, options=without_timeouts()) if isinstance(target, str) else None
        self._stub = cast("ModelServiceAsyncStub", ModelServiceStub(cast(Any, self._owned or target)))
        self._is_closed = False
        self._ratings: Coalescer[RatingQuestion, Prediction] = Coalescer(
            RatingCalls(self._stub).send,
            max_in_flight=calls_in_flight,
            max_together=users_together,
            max_waiting=_MAX_WAITING,
        )
        self._lists: Coalescer[pb.TopKRequest, Recommendations] = Coalescer(
            ListCalls(self._stub).send,
            max_in_flight=calls_in_flight,
            max_together=users_together,
            max_waiting=_MAX_WAITING,
        )

    async def __aenter__(self) -> "ModelClient":
        """Does nothing: the first question connects."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Closes."""
        await self.close()

    async def close(self) -> None:
        """Cancels who waits, and closes the channel if it was opened here."""
        self._is_closed = True
        await self._ratings.close()
        await self._lists.close()
        if self._owned is not None:
            await self._owned.close()

    async def predict_rating(
        self,
        user_id: str,
        movie_id: str,
        *,
        with_stddev: bool = False,
        min_user_version: str = "",
        model: pb.ModelSelector | None = None,
        timeout_s: float | None = None,
    ) -> Prediction:
        """Returns what a user would rate a movie.

        Args:
            user_id: External id; one that nobody stored is answered like an anonymous user.
            movie_id: External id; must be in the catalogue.
            with_stddev: Whether the deviation is needed; it costs more than the rating.
            min_user_version: Never answer from a state older than this, as WriteEvents returned it.
            model: Which model answers; None: the one that serves.
            timeout_s: How long to wait.

        Raises:
            CallError: As the service's, for example NOT_FOUND of a movie; DEADLINE_EXCEEDED when the time is over;
                CANCELLED once the client is closed.
            TypeError: An argument is of another type; the text names it.
            ValueError: An argument is out of the range of its type.
        """
        # Here, and not where the call is made: there it would be everybody's who shares it.
        require_text("user_id", user_id)
        require_text("movie_id", movie_id)
        require_text("min_user_version", min_user_version)
        if not isinstance(model, pb.ModelSelector | None):
            raise TypeError(f"model must be a ModelSelector or None, not {type(model).__name__}")
        kind = RatingKind(b"" if model is None else model.SerializeToString(), bool(with_stddev))
        question = RatingQuestion(user_id, movie_id, min_user_version)
        return await self._ask(self._ratings, kind, question, self._deadline(timeout_s))

    async def predict_ratings(
        self,
        pairs: Iterable[tuple[str, str]],
        *,
        with_stddev: bool = False,
        model: pb.ModelSelector | None = None,
        timeout_s: float | None = None,
    ) -> list[Prediction | CallError]:
        """Returns what users would rate movies, in the order of the pairs; of a pair that failed, why.

        Args:
            pairs: User and movie ids.
            with_stddev: As `predict_rating`.
            model: As `predict_rating`.
            timeout_s: For all of them.

        Raises:
            TypeError: A pair is none, or an id is no text; names the pair by its place. Then none was asked about.
            ValueError: An id is not UTF-8.
        """
        asked = [
            self.predict_rating(user_id, movie_id, with_stddev=with_stddev, model=model, timeout_s=timeout_s)
            for user_id, movie_id in pairs_of(pairs)
        ]
        answers: list[Prediction | CallError] = []
        for answer in await asyncio.gather(*asked, return_exceptions=True):
            if isinstance(answer, BaseException) and not isinstance(answer, CallError):
                raise answer
            answers.append(answer)
        return answers

    async def top_k(
        self,
        user: str | pb.UserSelector,
        k: int = 10,
        *,
        genres_any: Sequence[str] = (),
        genres_all: Sequence[str] = (),
        genres_none: Sequence[str] = (),
        year_min: int | None = None,
        year_max: int | None = None,
        allow: Sequence[str] | None = None,
        exclude: Sequence[str] = (),
        exclude_seen: bool = True,
        with_movie: bool = False,
        diversity: float = 0.0,
        explain: int = 0,
        min_user_version: str = "",
        model: pb.ModelSelector | None = None,
        timeout_s: float | None = None,
    ) -> Recommendations:
        """Returns the best movies for a user, best first. All conditions must hold; they are exact.

        Args:
            user: External id, or a selector: an inline user, or one with session events or profile overrides.
            k: Movies wanted, 1 to 500; fewer are answered only if fewer meet the conditions.
            genres_any: At least one of these.
            genres_all: All of these.
            genres_none: None of these.
            year_min: Not older than this year.
            year_max: Not newer than this year.
            allow: Only these movies, at most 10,000; None: all.
            exclude: None of these movies, at most 10,000.
            exclude_seen: Whether what the user ever watched is left out.
            with_movie: Whether titles, years and genres come along.
            diversity: How much variety counts against score, 0 to 1.
            explain: Movies of the history that are named as what speaks for each, 0 to 5.
            min_user_version: As `predict_rating`, for a user who is named by his id here.
            model: As `predict_rating`.
            timeout_s: As `predict_rating`.

        Raises:
            CallError: As `predict_rating`.
        """
        selector = user
        if isinstance(selector, str):
            selector = message_of(pb.UserSelector, user_id=selector, min_user_version=min_user_version)
        if not isinstance(selector, pb.UserSelector):
            raise TypeError(f"user must be an id (str) or a UserSelector, not {type(user).__name__}")
        lists = {"genres_any": genres_any, "genres_all": genres_all, "genres_none": genres_none}
        for name, values in {**lists, "allow": allow, "exclude": exclude}.items():
            require_list(name, values)
        request = message_of(
            pb.TopKRequest,
            user=selector,
            k=k,
            filter=message_of(
                pb.MovieFilter,
                **lists,
                year_min=year_min,
                year_max=year_max,
                allow=None if allow is None else pb.MovieList(movie_ids=allow),
                exclude=pb.MovieList(movie_ids=exclude) if exclude else None,
            ),
            exclude_seen=None if exclude_seen else False,
            view=movie_pb2.MOVIE_VIEW_MOVIE if with_movie else movie_pb2.MOVIE_VIEW_UNSPECIFIED,
            model=model,
            diversity=diversity,
            explain=explain,
        )
        deadline = self._deadline(timeout_s)
        if selector.WhichOneof("selector") != "user_id" or selector.session_events or explain:
            reply = await reply_of(self._stub.TopK(request, timeout=left_s(deadline)))
            return read_recommendations(reply, reply.model_version)
        return await self._ask(self._lists, list_kind(request), request, deadline)

    async def similar_movies(
        self, movie_id: str, k: int = 10, *, with_movie: bool = False, timeout_s: float | None = None
    ) -> Recommendations:
        """Returns the movies nearest to one, nearest first.

        Args:
            movie_id: External id; must be in the catalogue.
            k: Movies wanted, 1 to 500.
            with_movie: Whether titles, years and genres come along.
            timeout_s: How long to wait.

        Raises:
            CallError: As `predict_rating`.
        """
        view = movie_pb2.MOVIE_VIEW_MOVIE if with_movie else movie_pb2.MOVIE_VIEW_UNSPECIFIED
        request = message_of(pb.SimilarMoviesRequest, movie_id=movie_id, k=k, view=view)
        deadline = self._deadline(timeout_s)
        reply = await reply_of(self._stub.SimilarMovies(request, timeout=left_s(deadline)))
        row = pb.UserTopK(movies=reply.movies)
        return read_recommendations(row, reply.model_version)

    def _deadline(self, timeout_s: float | None) -> float:
        if self._is_closed:
            raise CallError.of(grpc.StatusCode.CANCELLED, "the client is closed")
        return time.monotonic() + (self._timeout_s if timeout_s is None else seconds("timeout_s", timeout_s))

    async def _ask(
        self, coalescer: "Coalescer[Any, _Answer]", kind: Hashable, question: object, deadline: float
    ) -> _Answer:
        """Asks one question; again if the user's state is not there yet, as the channel does for single calls."""
        for attempt in range(1, _CURRENT_TRIES + 1):
            try:
                return await coalescer.ask(kind, question, deadline)
            except TimeoutError as error:
                raise CallError.of(grpc.StatusCode.DEADLINE_EXCEEDED, "no answer came in time") from error
            except TooManyWaitingError as error:
                raise CallError.of(
                    grpc.StatusCode.RESOURCE_EXHAUSTED, f"{_MAX_WAITING} questions of this client wait already"
                ) from error
            except CallError as error:
                wait_s = _CURRENT_WAIT_S * 2**attempt * self._rng.uniform(0.5, 1.0)
                if error.reason != "USER_NOT_CURRENT" or attempt == _CURRENT_TRIES or left_s(deadline) < wait_s:
                    raise
                await asyncio.sleep(wait_s)
        raise AssertionError("the last attempt returns or raises")
