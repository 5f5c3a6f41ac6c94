"""Sends made-up requests to every RPC of running services and judges the answers. Knows statuses; starts nothing."""

import math
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import grpc
from google.protobuf import json_format, message_factory
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from hypothesis.errors import Flaky
from marquee.v1 import model_service_pb2

from tests.fuzz.fuzzed_stack import FuzzedStack
from tests.fuzz.mutations import spoil
from tests.fuzz.sound_messages import SoundMessages

EXAMPLES_A_ROUND = 40
# Longer than any answer takes on a busy machine: later than that it hangs.
_TIMEOUT_S = 60.0
_STREAMED_MESSAGES = 1
# What the contract documents. The rest is a bug or an accident: INTERNAL, UNKNOWN, CANCELLED, DATA_LOSS, a hang.
_DOCUMENTED = {"INVALID_ARGUMENT", "NOT_FOUND", "FAILED_PRECONDITION", "RESOURCE_EXHAUSTED", "UNAVAILABLE"}
_NOT_SOUND = "INVALID_ARGUMENT"


@dataclass(frozen=True)
class Finding:
    """An answer that no caller should get, with the smallest request that was found to cause it.

    Attributes:
        place: Where it went wrong, as far as the log tells: findings of one place are one finding.
    """

    method: str
    what: str
    request: str
    place: str


@dataclass
class Counts:
    """What was sent to one RPC and what came back, by status; `sound` of them passed validation."""

    statuses: Counter[str] = field(default_factory=Counter)

    @property
    def sent(self) -> int:
        """How many requests."""
        return self.statuses.total()

    @property
    def sound(self) -> int:
        """How many of them passed validation."""
        return self.sent - self.statuses[_NOT_SOUND] - self.statuses["TOO_LARGE"]


@dataclass
class Verdict:
    """What a run came to."""

    counts: dict[str, Counts] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)

    def total(self, *statuses: str) -> int:
        """Returns how many answers had one of these statuses, of all if none is named."""
        return sum(
            number
            for counts in self.counts.values()
            for status, number in counts.statuses.items()
            if not statuses or status in statuses
        )


class _BadAnswerError(Exception):
    """A finding, while hypothesis makes its request smaller."""

    def __init__(self, method: MethodDescriptor, what: str, request: Message | bytes, place: str) -> None:
        super().__init__(what)
        shown = request.hex() if isinstance(request, bytes) else json_format.MessageToJson(request, indent=None)
        self.finding = Finding(method.full_name, what, shown[:2000], place)


def fuzz(
    stack: FuzzedStack,
    until: float,
    rng: random.Random,
    say: Callable[[str], None],
    *,
    examples_a_round: int = EXAMPLES_A_ROUND,
    stop_at_finding: bool = False,
) -> Verdict:
    """Sends requests to all RPCs in turn until a moment of `time.monotonic` has come and each has had a round."""
    verdict = Verdict()
    methods = [(service, method) for service in stack.channels for method in service.methods]
    turns = _for_ever(methods)
    for turn, (service, method) in enumerate(turns):
        if turn >= len(methods) and time.monotonic() >= until:
            break
        messages = SoundMessages(stack.known())
        asking = _Asking(stack, stack.channels[service], method, verdict)
        try:
            _round(asking, messages, rng.randrange(2**32), examples_a_round)
        except (_BadAnswerError, Flaky):
            # Flaky: what was found depends on what is stored, and the very same request was answered well again.
            found = asking.smallest
            assert found is not None
            verdict.findings.append(found)
            say(f"{found.method}: {found.what}\n  {found.request}\n  {found.place}")
            if stop_at_finding:
                break
        if _is_over(stack, verdict, method, say):
            break
    return verdict


def _is_over(stack: FuzzedStack, verdict: Verdict, method: MethodDescriptor, say: Callable[[str], None]) -> bool:
    """Notes a service that has ended or answers wrongly what it knew: nothing more is to be found out from it."""
    problem = "\n".join(stack.dead())
    if not problem:
        try:
            stack.check()
        except (AssertionError, grpc.RpcError) as error:
            problem = f"a known good request is answered wrongly: {error}"
    if problem:
        verdict.findings.append(Finding(method.full_name, "after its round the service is broken", "", problem))
        say(problem)
    return bool(problem)


def _for_ever(methods: Sequence[Any]) -> Iterator[Any]:
    while True:
        yield from methods


def _round(asking: "_Asking", messages: SoundMessages, number: int, num_examples: int) -> None:
    sound = messages.of(asking.method.input_type)

    @seed(number)
    @settings(
        max_examples=num_examples,
        deadline=None,
        database=None,
        derandomize=False,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
        report_multiple_bugs=False,
    )
    @given(st.data())
    def send(data: st.DataObject) -> None:
        message = data.draw(sound)
        # Half of the requests stay as they are; of the others most have one thing wrong with them.
        for _ in range(data.draw(st.sampled_from([0, 0, 0, 1, 1, 4]))):
            spoil(data.draw, message)
        asking.send(message)
        if data.draw(st.integers(0, 15)) == 15:
            asking.send(data.draw(_garbled(message)))

    send()


@st.composite
def _garbled(draw: Callable[[st.SearchStrategy[Any]], Any], message: Message) -> bytes:
    """Returns a message with a few bytes changed, cut or put in: most are none any more."""
    payload = bytearray(message.SerializeToString())
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(payload)))
        payload[at : at + draw(st.integers(0, 3))] = draw(st.binary(max_size=4))
    return bytes(payload)


class _Asking:
    """Sends requests of one RPC.

    Attributes:
        smallest: The finding with the smallest request so far.
    """

    def __init__(self, stack: FuzzedStack, channel: grpc.Channel, method: MethodDescriptor, verdict: Verdict) -> None:
        self.method = method
        self._stack = stack
        self._verdict = verdict
        self._counts = verdict.counts.setdefault(method.full_name, Counts())
        self._sent = 0
        self.smallest: Finding | None = None
        path = f"/{method.containing_service.full_name}/{method.name}"
        self._call: Any = channel.unary_stream(path) if method.server_streaming else channel.unary_unary(path)

    def send(self, request: Message | bytes) -> None:
        """Sends one request. Raises `_BadAnswerError` for an answer that no caller should get."""
        payload = request if isinstance(request, bytes) else request.SerializeToString()
        self._sent += 1
        request_id = f"fuzz-{id(self):x}-{self._sent}"
        problem = ""
        try:
            reply = self._ask(payload, request_id)
            status = "OK"
        except grpc.RpcError as error:
            status, problem = _judge(error)
        else:
            # A payload of bytes may have been spoiled into any request: what is right to answer is not known.
            problem = "" if isinstance(request, bytes) else _not_finite(reply)
        self._counts.statuses[status] += 1
        if problem:
            place = _place(self._stack.logged(request_id)) or problem
            if all(place != known.place for known in self._verdict.findings):
                bad = _BadAnswerError(self.method, problem, request, place)
                self.smallest = bad.finding
                raise bad

    def _ask(self, payload: bytes, request_id: str) -> Message:
        metadata = (("x-request-id", request_id),)
        answered = message_factory.GetMessageClass(self.method.output_type)
        if not self.method.server_streaming:
            return answered.FromString(self._call(payload, timeout=_TIMEOUT_S, metadata=metadata))
        stream = self._call(payload, timeout=_TIMEOUT_S, metadata=metadata)
        try:
            return answered.FromString(next(stream))
        finally:
            stream.cancel()


def _judge(error: Any) -> tuple[str, str]:
    """Returns the status, and what is wrong with it: it is none of the contract, or says too little."""
    status = error.code().name
    if status not in _DOCUMENTED:
        return status, f"{status}: {error.details()}"
    details = dict(error.trailing_metadata() or ()).get("grpc-status-details-bin")
    if details is None:
        if status == "RESOURCE_EXHAUSTED" and "larger than max" in (error.details() or ""):
            return "TOO_LARGE", ""
        return status, f"{status} without details: {error.details()}"
    info = error_details_pb2.ErrorInfo()
    for packed in status_pb2.Status.FromString(details).details:
        if packed.Unpack(info) and info.domain == "marquee" and info.reason:
            return status, ""
    return status, f"{status} without a reason: {error.details()}"


def _not_finite(reply: Message) -> str:
    """Names a number of an answer that is none; rows of a batch say by their status that they have none."""
    if isinstance(reply, model_service_pb2.BatchPredictRatingsResponse):
        rows = [reply.ratings[row] for row, status in enumerate(reply.statuses) if status == 1]
        return "" if all(map(math.isfinite, rows)) else "an answered row without a rating"
    for place, value in _numbers(reply):
        if not math.isfinite(value):
            return f"{place} is {value}"
    return ""


def _numbers(message: Message) -> Iterator[tuple[str, float]]:
    for found, value in message.ListFields():
        if found.message_type is None:
            if found.cpp_type in (found.CPPTYPE_FLOAT, found.CPPTYPE_DOUBLE):
                yield from ((found.full_name, one) for one in (value if found.is_repeated else [value]))
        elif not found.message_type.GetOptions().map_entry:
            for part in value if found.is_repeated else [value]:
                yield from _numbers(part)


def _place(exception: str) -> str:
    """Returns the last two lines of a traceback that name a place, and what was raised."""
    lines = [line.strip() for line in exception.splitlines() if line.strip()]
    places = [line for line in lines if line.startswith("File ")]
    return " ".join([*places[-2:], *lines[-1:]])
