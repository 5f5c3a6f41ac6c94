"""Calls travel several at once, and never more than allowed."""

import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import grpc
import pytest

from trainer.call_pipeline import pipelined


class Adder:
    """Answers a number with the next one, as a stub does, on threads of its own; one number it may refuse."""

    def __init__(self, num_threads: int = 8, refused: int | None = None) -> None:
        self._pool = ThreadPoolExecutor(num_threads)
        self._lock = threading.Lock()
        self._refused = refused
        self.num_sent = self.num_under_way = self.most_under_way = 0

    def future(self, request: int, timeout: float) -> Future[int]:
        assert timeout == 5
        with self._lock:
            self.num_sent += 1
            self.num_under_way += 1
            self.most_under_way = max(self.most_under_way, self.num_under_way)
        return self._pool.submit(self._answer, request)

    def _answer(self, request: int) -> int:
        with self._lock:
            self.num_under_way -= 1
        if request == self._refused:
            raise LookupError(request)
        return request + 1


class Held(Adder):
    """Answers nothing before it is released."""

    def __init__(self) -> None:
        super().__init__()
        self.released = threading.Event()

    def _answer(self, request: int) -> int:
        assert self.released.wait(60)
        return super()._answer(request)


def test_answers_come_in_the_order_of_the_requests() -> None:
    """Each with its request, all of them, once."""
    sent = list(pipelined(Adder(), range(100), num_in_flight=7, timeout_s=5))

    assert sent == [(number, number + 1) for number in range(100)]


def test_no_more_are_under_way_than_allowed() -> None:
    """The source is asked for another request only when there is room: it may be larger than memory."""
    made = []

    def source() -> Iterator[int]:
        for number in range(50):
            made.append(number)
            yield number

    call = Held()
    sent = pipelined(call, source(), num_in_flight=3, timeout_s=5)
    reader = threading.Thread(target=lambda: list(sent))
    reader.start()
    while call.num_sent < 3:
        assert reader.is_alive()
    num_made_while_held = len(made)
    call.released.set()
    reader.join(60)

    assert num_made_while_held <= 4
    assert call.most_under_way == 3
    assert made == list(range(50))


def test_a_failure_stops_the_sending() -> None:
    """What was under way may have arrived; nothing further is sent."""
    call = Adder(refused=11)
    answered = []

    def send() -> None:
        for request, _ in pipelined(call, range(1000), num_in_flight=4, timeout_s=5):
            answered.append(request)

    with pytest.raises(LookupError):
        send()

    assert answered == list(range(11))
    assert call.num_sent <= 11 + 4


class PassingError(grpc.RpcError):
    """What a call fails with while a service restarts."""

    def __init__(self, code: grpc.StatusCode) -> None:
        self._code = code

    def code(self) -> grpc.StatusCode:
        return self._code


class Restarting(Adder):
    """Fails from one request on, for some seconds of a clock that only waiting moves."""

    def __init__(self, away_s: float, code: grpc.StatusCode, first: int = 10) -> None:
        super().__init__()
        self.now = 0.0
        self._first, self._away_s, self._code = first, away_s, code

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def _answer(self, request: int) -> int:
        if request >= self._first and self.now < self._away_s:
            raise PassingError(self._code)
        return super()._answer(request)

    def send(self) -> list[tuple[int, int]]:
        return list(
            pipelined(
                self,
                range(30),
                num_in_flight=4,
                timeout_s=5,
                patience_s=60,
                sleep=self.sleep,
                clock=lambda: self.now,
            )
        )


def test_a_service_that_is_away_for_a_while_is_waited_for() -> None:
    """Nothing is left out, and the order is kept."""
    call = Restarting(away_s=50, code=grpc.StatusCode.UNAVAILABLE)

    assert call.send() == [(number, number + 1) for number in range(30)]
    assert call.now >= 50


@pytest.mark.parametrize(
    ("away_s", "code", "first"),
    [
        (1000, grpc.StatusCode.UNAVAILABLE, 10),  # longer than the patience
        (50, grpc.StatusCode.INVALID_ARGUMENT, 10),  # nothing that passes
        (50, grpc.StatusCode.UNAVAILABLE, 0),  # nobody ever answered there
    ],
)
def test_what_does_not_pass_ends_the_load(away_s: float, code: grpc.StatusCode, first: int) -> None:
    """With the error of the call."""
    with pytest.raises(PassingError) as raised:
        Restarting(away_s, code, first).send()

    assert raised.value.code() == code
