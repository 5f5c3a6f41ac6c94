"""Tells which part of a server was at work, by the stacks of a sampling profiler. Knows our folders; runs nothing."""

import re
from collections import Counter
from collections.abc import Iterable

GRPC = "gRPC, asyncio, sockets"
OTHERS = "the handler, and what stands between the others"
_LAYERS = (
    (re.compile(r"service_runtime/"), "reading, counting and timing the call"),
    (re.compile(r"model_service/(admission|field_rules|versions|canaries|queries|filters)\.py"), "checking it"),
    (re.compile(r"model_service/(near_features|near_cache)\.py"), "finding the user"),
    (re.compile(r"two_tower/|model_service/near_(answers|pairs)\.py"), "ratings and scores"),
    (re.compile(r"model_service/answers\.py"), "the message of the answer"),
    (re.compile(r"model_service/"), OTHERS),
)
LAYERS = (GRPC, *(name for _, name in _LAYERS))
_FIRST_THREAD = "MainThread"
# Stands at the bottom of each stack, whatever is at work.
_BOTTOM = re.compile(r"\((model_service/__main__|service_runtime/server)\.py:\d+\)$")
_FILE = re.compile(r"\(([^()]+):\d+\)$")


def layer_of(frames: Iterable[str]) -> str:
    """Returns the layer of a stack, outermost frame first: that of the innermost frame which is of ours."""
    for frame in reversed(list(frames)):
        place = _FILE.search(frame)
        if place is None or _BOTTOM.search(frame):
            continue
        for pattern, name in _LAYERS:
            if pattern.match(place[1]):
                return name
    return GRPC


def shares(stacks: str) -> dict[str, float]:
    """Returns the share of the samples that each layer has, of lines `THREAD;FRAME;FRAME;... COUNT`.

    Other threads than the first one are left out. What is not of ours may be work or waiting: a profiler cannot tell.

    Raises:
        ValueError: There is no sample.
    """
    counts: Counter[str] = Counter()
    for line in stacks.splitlines():
        stack, _, count = line.rpartition(" ")
        thread, *frames = stack.split(";")
        if thread.endswith(_FIRST_THREAD):
            counts[layer_of(frames)] += int(count)
    if not counts:
        raise ValueError("the profiler took no sample: was the server asked?")
    return {name: counts[name] / counts.total() for name in LAYERS}
