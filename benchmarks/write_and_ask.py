"""Writes events and asks for lists right after them, and judges each list by what was written before it was asked for.

Knows stubs, users and versions; starts nothing and prints nothing.
"""

import asyncio
import random
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import grpc.aio
from marquee.client.errors import read_error
from marquee.client.user_version import UserVersion
from marquee.v1 import feature_service_pb2, feature_service_pb2_grpc, model_service_pb2, model_service_pb2_grpc

TIMEOUT_S = 60.0
K = 5
WORKERS = 16


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do.

    Attributes:
        pairs: Writes with a list right after each.
        together: Users of one call; 1 uses WriteEvents of one event and TopK.
        with_versions: Whether lists are asked for with the version of the write.
        lists_after: Lists more that are asked for after each pair, on average.
    """

    pairs: int
    together: int
    with_versions: bool = True
    lists_after: float = 1.4


class _Group:
    """Users that are written and asked for together; nobody else writes to them."""

    def __init__(self, user_ids: Sequence[str]) -> None:
        self.user_ids = user_ids
        self.versions = [""] * len(user_ids)
        self.written: list[set[str]] = [set() for _ in user_ids]
        self.lists: list[list[str]] = [[] for _ in user_ids]


async def write_and_ask(
    features: "feature_service_pb2_grpc.FeatureServiceAsyncStub",
    replicas: "Sequence[model_service_pb2_grpc.ModelServiceAsyncStub]",
    user_ids: Sequence[str],
    plan: Plan,
    rng: random.Random,
) -> Counter[str]:
    """Returns how many pairs there were, how many lists, how many of them were stale, and how many were refused.

    Args:
        features: Takes the events.
        replicas: Each list is asked of one of them.
        user_ids: Nobody else may write to them meanwhile.
        plan: What to do.
        rng: Chooses replicas.
    """
    counts: Counter[str] = Counter()
    starts = range(0, len(user_ids) - plan.together + 1, plan.together)
    groups = [_Group(user_ids[start : start + plan.together]) for start in starts]
    turns = iter(range(plan.pairs // plan.together))

    async def work(mine: Sequence[_Group]) -> None:
        for group in mine:
            for replica in replicas:
                await _ask(replica, group, plan, Counter())
        while True:
            for group in mine:
                if next(turns, None) is None:
                    return
                await _write(features, group)
                counts["pairs"] += len(group.user_ids)
                replica = rng.choice(replicas)
                more = int(plan.lists_after) + (rng.random() < plan.lists_after % 1)
                for _ in range(1 + more):
                    await _ask(replica, group, plan, counts)

    await asyncio.gather(*(work(groups[number::WORKERS]) for number in range(min(WORKERS, len(groups)))))
    return counts


async def _write(features: "feature_service_pb2_grpc.FeatureServiceAsyncStub", group: _Group) -> None:
    """Writes one event for each user: the best of his last list that was not written yet."""
    request = feature_service_pb2.WriteEventsRequest()
    now_ms = int(time.time() * 1000)
    for row, user_id in enumerate(group.user_ids):
        # Where lists stay as they were, as in the control, all of one are written at last: then again.
        movies = group.lists[row]
        movie_id = next((movie for movie in movies if movie not in group.written[row]), movies[0])
        event = request.events.add(event_id=f"{user_id}/{movie_id}", user_id=user_id, movie_id=movie_id, rating=4.0)
        event.event_time.FromMilliseconds(now_ms)
        group.written[row].add(movie_id)
    answer = await features.WriteEvents(request, timeout=TIMEOUT_S)
    group.versions = [result.user_version for result in answer.results]


async def _ask(
    replica: "model_service_pb2_grpc.ModelServiceAsyncStub", group: _Group, plan: Plan, counts: Counter[str]
) -> None:
    """Asks for the lists of a group and counts what became of them."""
    users = [
        model_service_pb2.UserSelector(user_id=user_id, min_user_version=version if plan.with_versions else "")
        for user_id, version in zip(group.user_ids, group.versions, strict=True)
    ]
    counts["lists"] += len(users)
    answers: Sequence[model_service_pb2.UserTopK | model_service_pb2.TopKResponse]
    if plan.together == 1:
        try:
            request = model_service_pb2.TopKRequest(user=users[0], k=K)
            answers = [await replica.TopK(request, timeout=TIMEOUT_S)]
        except grpc.aio.AioRpcError as error:
            if read_error(error).reason != "USER_NOT_CURRENT":
                raise
            counts["refused"] += 1
            return
    else:
        batch = model_service_pb2.BatchTopKRequest(users=users, k=K)
        answers = (await replica.BatchTopK(batch, timeout=TIMEOUT_S)).results
    for row, answer in enumerate(answers):
        if isinstance(answer, model_service_pb2.UserTopK) and answer.status != model_service_pb2.ROW_STATUS_OK:
            counts["refused"] += 1
            continue
        group.lists[row] = [movie.movie_id for movie in answer.movies]
        holds_written = not group.written[row].isdisjoint(group.lists[row])
        if holds_written or _is_older(answer.user_version, group.versions[row]):
            counts["stale_lists"] += 1


def _is_older(found: str, written: str) -> bool:
    return bool(written) and not UserVersion.parse(found).includes(UserVersion.parse(written))
