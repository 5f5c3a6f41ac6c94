"""Asks ModelService from threads; what threads ask at the same time travels together. Knows no RPC.

    with SyncModelClient("localhost:50052") as model:
        prediction = model.predict_rating("ann", "heat")
        page = model.top_k("ann", k=10, genres_any=["Drama"])

Arguments, answers and errors are those of `ModelClient`.
"""

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterable
from concurrent.futures import CancelledError
from types import TracebackType
from typing import Any, ParamSpec, TypeVar

import grpc
from marquee.client.answers import Prediction, Recommendations
from marquee.client.errors import CallError
from marquee.client.model_client import ModelClient

_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")


class SyncModelClient:
    """`ModelClient` for programs without an event loop: same methods, same arguments. Any number of threads."""

    def __init__(self, target: str, **settings: Any) -> None:
        """Starts the thread that makes the calls; the first question connects.

        Args:
            target: host:port or any gRPC target.
            settings: As those of `ModelClient`.
        """
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="marquee-client", daemon=True)
        self._thread.start()
        try:
            self._client = self._run(_made(target, settings))
        except BaseException:
            self._end()
            raise

    def __enter__(self) -> "SyncModelClient":
        """Does nothing: the first question connects."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Closes."""
        self.close()

    def close(self) -> None:
        """Refuses who waits, closes the channel and ends the thread. More than once does no harm."""
        if self._loop.is_closed():
            return
        self._run(self._client.close())
        self._end()

    def predict_rating(self, user_id: str, movie_id: str, **wishes: Any) -> Prediction:
        """Returns what a user would rate a movie, as `ModelClient.predict_rating`."""
        return self._ask(self._client.predict_rating, user_id, movie_id, **wishes)

    def predict_ratings(self, pairs: Iterable[tuple[str, str]], **wishes: Any) -> list[Prediction | CallError]:
        """Returns what users would rate movies, as `ModelClient.predict_ratings`."""
        return self._ask(self._client.predict_ratings, pairs, **wishes)

    def top_k(self, user: Any, k: int = 10, **wishes: Any) -> Recommendations:
        """Returns the best movies for a user, as `ModelClient.top_k`."""
        return self._ask(self._client.top_k, user, k, **wishes)

    def similar_movies(self, movie_id: str, k: int = 10, **wishes: Any) -> Recommendations:
        """Returns the movies nearest to one, as `ModelClient.similar_movies`."""
        return self._ask(self._client.similar_movies, movie_id, k, **wishes)

    def _ask(
        self,
        method: Callable[_Arguments, Coroutine[Any, Any, _Result]],
        *arguments: _Arguments.args,
        **named: _Arguments.kwargs,
    ) -> _Result:
        if self._loop.is_closed():
            raise CallError.of(grpc.StatusCode.CANCELLED, "the client is closed")
        try:
            return self._run(method(*arguments, **named))
        except CancelledError as error:
            raise CallError.of(grpc.StatusCode.CANCELLED, "the client was closed") from error

    def _end(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _run(self, work: Coroutine[Any, Any, _Result]) -> _Result:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()


async def _made(target: str, settings: dict[str, Any]) -> ModelClient:
    """Returns a client that belongs to the loop that runs this."""
    return ModelClient(target, **settings)
