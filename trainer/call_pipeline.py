"""Sends calls before earlier ones are answered, a bounded number at once. Knows calls; knows no message and no store.

While one call travels, another is being made and a third is being worked on: what is sent in bulk takes as long as the
slowest of the three, not as their sum. The source of the requests is asked for the next one only when there is room, so
that it may be a stream without an end in memory.
"""

from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

RequestT = TypeVar("RequestT")


def pipelined(
    call: Any, requests: Iterable[RequestT], *, num_in_flight: int, timeout_s: float
) -> Iterator[tuple[RequestT, Any]]:
    """Yields requests with their answers, in the order of the requests.

    Args:
        call: A unary RPC of a blocking stub.
        requests: What to send; calls that are under way at once must not depend on each other.
        num_in_flight: Calls under way at most.
        timeout_s: For each call.

    Raises:
        grpc.RpcError: A call failed; those under way are let go, and may or may not have been carried out.
    """
    under_way: deque[tuple[RequestT, Any]] = deque()
    try:
        for request in requests:
            if len(under_way) == num_in_flight:
                yield _oldest(under_way)
            under_way.append((request, call.future(request, timeout=timeout_s)))
        while under_way:
            yield _oldest(under_way)
    finally:
        for _, answer in under_way:
            answer.cancel()


def _oldest(under_way: deque[tuple[RequestT, Any]]) -> tuple[RequestT, Any]:
    request, answer = under_way[0]
    response = answer.result()
    under_way.popleft()
    return request, response
