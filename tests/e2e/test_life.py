"""Days of the running stack: what is watched is learnt and served, a version goes back, processes die under load."""

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from marquee.client.channel import open_sync_channel
from marquee.v1 import feature_service_pb2 as fpb
from marquee.v1 import model_service_pb2 as pb
from marquee.v1.feature_service_pb2_grpc import FeatureServiceStub
from marquee.v1.model_service_pb2_grpc import ModelServiceStub
from numpy.typing import NDArray

from benchmarks.steady_load import SteadyAnswers, SteadyCaller, SteadyLoad
from benchmarks.swap_figures import MIN_TOLD_APART, share_told_apart, wrong_answers
from deploy.test_containers.compose import Project
from deploy.test_containers.phases import phase
from deploy.test_containers.stand_ins import BaseImages
from tests.chaos.drills import Recorder, drilled
from tests.chaos.load import Load
from tests.chaos.truth import Truth, learn_truth
from tests.e2e.asking import address_of, ask, journal, serving_version
from tests.e2e.conftest import DRILLS
from tests.e2e.outages import kill_process, start_s
from tests.e2e.waiting import SERVERS, wait_for_health, wait_until
from tests.feature_service import messages as make

pytestmark = pytest.mark.containers

# Everybody watches and likes the same ten movies: a model that has seen it knows that, and one that has not does not.
FASHION = [str(number) for number in range(1, 11)]
FOLLOWERS = [str(number) for number in range(1, 601)]
# Nobody writes to these, so that what they are answered depends on the version alone.
OTHERS = [str(number) for number in range(701, 761)]
ASKED = [(user_id, str(11 + place)) for place, user_id in enumerate(OTHERS)]
REBUILT_WITHIN_S = 600.0
TIMEOUT_S = 60.0


@dataclass(frozen=True)
class Rebuilt:
    """A round of the loop, through which questions were asked.

    Attributes:
        before: Version that answered before.
        interrupted: What the journal said when the process that rebuilt was killed.
        result: What the rebuild came to.
        rights: What the engine was told of the container that rebuilt.
        answers: What was answered meanwhile.
        expected: What both versions answer to the questions. float32 [2, P]
    """

    before: str
    interrupted: dict[str, Any]
    result: dict[str, Any]
    rights: dict[str, Any]
    answers: SteadyAnswers
    expected: NDArray[np.float32]


def write_fashion(address: str) -> int:
    """Writes that everybody watched what is in fashion, minutes ago; returns how many events were applied."""
    now_ms = int(time.time() * 1000)
    pairs = [(user_id, movie_id) for user_id in FOLLOWERS for movie_id in FASHION]
    events = [
        make.event(f"fashion-{user_id}-{movie_id}", user_id, movie_id, 5.0, now_ms - 1000 * (len(pairs) - place))
        for place, (user_id, movie_id) in enumerate(pairs)
    ]
    with open_sync_channel(address) as channel:
        stub = FeatureServiceStub(channel)
        replies = [
            stub.WriteEvents(make.write(*events[first : first + 500]), timeout=TIMEOUT_S)
            for first in range(0, len(events), 500)
        ]
    return sum(result.status == fpb.EVENT_STATUS_APPLIED for reply in replies for result in reply.results)


def scores(address: str, versions: list[str]) -> NDArray[np.float32]:
    """Returns what each version answers to the questions. float32 [V, P]."""
    with open_sync_channel(address) as channel:
        stub = ModelServiceStub(channel)
        return np.array(
            [
                [
                    stub.PredictRating(
                        pb.PredictRatingRequest(
                            user=pb.UserSelector(user_id=user_id),
                            movie_id=movie_id,
                            model=pb.ModelSelector(model_version=version),
                        ),
                        timeout=TIMEOUT_S,
                    ).score
                    for user_id, movie_id in ASKED
                ]
                for version in versions
            ],
            np.float32,
        )


@contextmanager
def asking(stack: Project) -> Iterator[Callable[[], SteadyAnswers]]:
    """Asks for ratings while the block lasts; what it gives ends that and returns what was answered."""
    load = SteadyLoad(address_of(stack, "model_service"), ASKED, per_s=20, seconds=900, timeout_s=TIMEOUT_S)
    with SteadyCaller(load) as caller:
        yield caller.answers


@pytest.fixture(scope="module")
def rebuilt(stack: Project, bases: BaseImages) -> Rebuilt:
    """Events are written, the service `rebuild` is started, killed when it has its data, and left to the engine.

    A rebuild trains what has the label. That is a model here which takes some seconds: longer than to look and to kill.
    """
    wait_for_health(stack)
    first = serving_version(stack)
    where = ("--registry", "/registry")
    small = ("--model", "two-tower-history", "--set", "epochs=2", "--no-calibrate", "--no-report", "--label", "small")
    ask(stack, "train", "--data", "/data/synthetic", *where, *small)
    ask(stack, "promote", "small", *where, "--force", "small enough for a test")
    wait_until(lambda: serving_version(stack) != first, TIMEOUT_S)
    before = serving_version(stack)
    assert write_fashion(address_of(stack, "feature_service")) == len(FOLLOWERS) * len(FASHION)
    with asking(stack) as answers, phase("rebuild, killed once, and reload"):
        stack.compose("--profile", "rebuild", "up", "--detach", "--no-build", "--no-deps", "rebuild")
        wait_until(lambda: (journal(stack)["run"] or {}).get("snapshot") is not None, REBUILT_WITHIN_S)
        kill_process(stack, bases, "rebuild")
        interrupted = journal(stack)["run"]
        wait_until(lambda: bool(journal(stack)["results"]), REBUILT_WITHIN_S)
        result = journal(stack)["results"][-1]
        wait_until(lambda: serving_version(stack) == result["version"], TIMEOUT_S)
        answered = answers()
    rights = stack.inspect("rebuild")
    stack.compose("--profile", "rebuild", "rm", "--stop", "--force", "rebuild")
    expected = scores(address_of(stack, "model_service"), [before, result["version"]])
    return Rebuilt(before, interrupted, result, rights, answered, expected)


def test_what_is_written_is_learnt_and_promoted(rebuilt: Rebuilt) -> None:
    """The rebuild that was killed is the one that was ended; it read every event, and its model won the label."""
    result = rebuilt.result

    assert result["outcome"] == "promoted", result["reason"]
    assert result["started_at_ms"] == rebuilt.interrupted["started_at_ms"]
    assert result["num_events"] == len(FOLLOWERS) * len(FASHION)
    assert result["version"] != rebuilt.before


def test_nobody_notices_that_the_new_version_is_loaded(rebuilt: Rebuilt) -> None:
    """Every question was answered, by the version that it names, and by no older one once the newer had answered."""
    versions = [rebuilt.before, rebuilt.result["version"]]

    print(f"{len(rebuilt.answers.due_s)} questions through a rebuild and a reload")
    assert wrong_answers(rebuilt.answers, versions, rebuilt.expected, 0) == []
    assert share_told_apart(rebuilt.expected) >= MIN_TOLD_APART


def test_who_rebuilds_has_no_more_rights_than_he_needs(rebuilt: Rebuilt) -> None:
    """As every other container of the file."""
    assert rebuilt.rights["Config"]["User"].split(":")[0] not in ("", "0", "root")
    assert rebuilt.rights["HostConfig"]["ReadonlyRootfs"] is True
    assert rebuilt.rights["HostConfig"]["CapDrop"] == ["ALL"]


def test_nobody_notices_that_the_old_version_is_promoted_again(stack: Project, rebuilt: Rebuilt) -> None:
    """It takes a reason, and the version that served before answers again."""
    after = rebuilt.result["version"]
    with asking(stack) as answers:
        ask(stack, "promote", rebuilt.before, "--registry", "/registry", "--force", "the lists look odd")
        wait_until(lambda: serving_version(stack) == rebuilt.before, TIMEOUT_S)
        answered = answers()

    assert wrong_answers(answered, [after, rebuilt.before], rebuilt.expected[::-1], 0) == []


@pytest.fixture(scope="module")
def truth(stack: Project, rebuilt: Rebuilt) -> Truth:
    """What the stack answers while nothing happens to it."""
    addresses = (address_of(stack, "feature_service"), address_of(stack, "model_service"))
    return asyncio.run(learn_truth(*addresses, OTHERS, [str(number) for number in range(1, 201)]))


@pytest.mark.parametrize("service", SERVERS)
async def test_a_process_is_killed(
    stack: Project, bases: BaseImages, truth: Truth, service: str, record_property: Recorder
) -> None:
    """The engine starts it again; nobody else has to, what was acknowledged is there, and no answer is wrong."""
    load = Load(address_of(stack, "feature_service"), address_of(stack, "model_service"), truth)
    async with drilled(f"{service} killed", load, DRILLS, record_property):
        await asyncio.to_thread(kill_process, stack, bases, service)

    await asyncio.to_thread(wait_for_health, stack)
    print(f"{service}: at work {start_s(stack, service):.1f} s after it was started again")


@pytest.mark.parametrize("service", SERVERS)
async def test_a_container_is_restarted(stack: Project, truth: Truth, service: str, record_property: Recorder) -> None:
    """It ends what it has begun and comes back; callers are refused meanwhile, and are told why."""
    load = Load(address_of(stack, "feature_service"), address_of(stack, "model_service"), truth)
    async with drilled(f"{service} restarted", load, DRILLS, record_property):
        await asyncio.to_thread(stack.compose, "restart", "--timeout", "30", service)

    assert stack.inspect(service)["State"]["Running"]
