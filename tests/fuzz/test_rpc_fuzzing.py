"""The fuzzer of the RPCs finds what is there to find, and asks for enough that is sound."""

import random
import time

import pytest
from google.protobuf import message_factory
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fuzz.fuzzed_stack import FEATURES, features_alone
from tests.fuzz.mutations import spoil
from tests.fuzz.rpc_rounds import fuzz


@pytest.fixture
def say() -> list[str]:
    return []


def test_a_planted_bug_is_found(tmp_path, say):
    """A division by zero behind a sound, rare request; the finding names the place and the smallest such request."""
    with features_alone(tmp_path, "tests.fuzz.planted_feature_service") as stack:
        verdict = fuzz(stack, time.monotonic() + 60, random.Random(1), say.append, stop_at_finding=True)

    (finding,) = verdict.findings
    assert finding.method == "marquee.v1.FeatureService.BatchGetUsers"
    assert finding.what.startswith("INTERNAL")
    assert "ZeroDivisionError" in finding.place
    assert "planted_feature_service.py" in finding.place
    assert '"historyLimit": 0' in finding.request
    assert verdict.total("INTERNAL") > 0


def test_every_rpc_is_asked_for_what_it_takes(tmp_path, say):
    """A round of each: every RPC answers some, most pass validation, some are refused, and nothing is broken after."""
    with features_alone(tmp_path) as stack:
        verdict = fuzz(stack, time.monotonic(), random.Random(1), say.append, examples_a_round=8)

    assert (verdict.findings, say) == ([], [])
    assert list(verdict.counts) == [method.full_name for method in FEATURES.methods]
    assert all(counts.statuses["OK"] > 0 for counts in verdict.counts.values())
    assert verdict.total("OK") > 0.5 * verdict.total()
    assert verdict.total("INVALID_ARGUMENT") > 0.05 * verdict.total()
    assert verdict.total("INTERNAL", "UNKNOWN", "DEADLINE_EXCEEDED") == 0


@settings(max_examples=30, deadline=None, database=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_what_is_spoiled_can_be_sent(data):
    """Whatever is done to a message of the contract, it is still one: hostile values stay within their types."""
    method = data.draw(st.sampled_from(list(FEATURES.methods)))
    request_type = message_factory.GetMessageClass(method.input_type)
    message = request_type()

    for _ in range(8):
        spoil(data.draw, message)

    assert request_type.FromString(message.SerializeToString()).ByteSize() == message.ByteSize()
