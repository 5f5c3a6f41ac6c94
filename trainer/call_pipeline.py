"""Sends calls before earlier ones are answered, a bounded number at once. Knows calls; knows no message and no store.

While one call travels, another is being made and a third is being worked on: what is sent in bulk takes as long as the
slowest of the three, not as their sum. The source of the requests is asked for the next one only when there is room, so
that it may be a stream without an end in memory. A service that is away or overloaded for a while is waited for: a load
of an hour must not end because of a restart.
"""

import random
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

import grpc

RequestT = TypeVar("RequestT")

PATIENCE_S = 120.0
# Of calls that change nothing when they are carried out twice, as all of a load are.
_WORTH_ANOTHER_TRY = (
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
)
_SHORTEST_WAIT_S, _LONGEST_WAIT_S = 0.5, 10.0


def pipelined(
    call: Any,
    requests: Iterable[RequestT],
    *,
    num_in_flight: int,
    timeout_s: float,
    patience_s: float = PATIENCE_S,
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
    rng: random.Random | None = None,
) -> Iterator[tuple[RequestT, Any]]:
    """Yields requests with their answers, in the order of the requests.

    Args:
        call: A unary RPC of a blocking stub.
        requests: What to send; calls that are under way at once must not depend on each other, and each may be carried
            out more than once.
        num_in_flight: Calls under way at most.
        timeout_s: For each call.
        patience_s: How long one request is tried again, alone, that failed for a reason that passes; it does so from
            the first answer on: a service that was never there is not waited for.
        sleep: Waits for so many seconds.
        clock: Gives monotonic seconds.
        rng: Varies the waits; None: one of its own.

    Raises:
        grpc.RpcError: A call failed; those under way are let go, and may or may not have been carried out.
    """
    under_way: deque[tuple[RequestT, Any]] = deque()
    answered = False
    rng = rng or random.Random()

    def oldest() -> tuple[RequestT, Any]:
        nonlocal answered
        request, answer = under_way[0]
        give_up, wait_s = clock() + patience_s, _SHORTEST_WAIT_S
        while True:
            try:
                response = answer.result()
                break
            except grpc.RpcError as error:
                if not answered or error.code() not in _WORTH_ANOTHER_TRY or clock() > give_up:
                    raise
            # Of a length by chance, so that several loaders do not come back as one.
            sleep(wait_s * rng.uniform(0.5, 1.0))
            wait_s = min(2 * wait_s, _LONGEST_WAIT_S)
            answer = call.future(request, timeout=timeout_s)
        answered = True
        under_way.popleft()
        return request, response

    try:
        for request in requests:
            if len(under_way) == num_in_flight:
                yield oldest()
            under_way.append((request, call.future(request, timeout=timeout_s)))
        while under_way:
            yield oldest()
    finally:
        for _, answer in under_way:
            answer.cancel()
