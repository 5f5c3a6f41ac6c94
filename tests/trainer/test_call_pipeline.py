"""Calls travel several at once, and never more than allowed."""

import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

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
