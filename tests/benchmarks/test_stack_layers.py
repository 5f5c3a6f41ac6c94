"""A sample counts for the innermost part of ours that was at work, and for gRPC where none was."""

import pytest

from benchmarks.stack_layers import GRPC, LAYERS, layer_of, shares

BOTTOM = ["main (model_service/__main__.py:287)", "run (service_runtime/server.py:286)", "run (uvloop/__init__.py:92)"]
BEHAVIOUR = "Behaviours.unary.<locals>.behaviour (service_runtime/behaviours.py:73)"


@pytest.mark.parametrize(
    ("frames", "layer"),
    [
        ([], GRPC),
        (["wait (asyncio/tasks.py:415)"], GRPC),
        ([BEHAVIOUR], "reading, counting and timing the call"),
        ([BEHAVIOUR, "_admit (model_service/handlers.py:1)", "k (model_service/field_rules.py:9)"], "checking it"),
        ([BEHAVIOUR, "_rated (model_service/near_answers.py:1)", "any (numpy/_core.py:61)"], "ratings and scores"),
        ([BEHAVIOUR, "peek_each (model_service/near_cache.py:1)"], "finding the user"),
        ([BEHAVIOUR, "predict_rating (model_service/answers.py:54)"], "the message of the answer"),
        ([BEHAVIOUR, "submit (model_service/batcher.py:54)"], "the handler, and what stands between the others"),
    ],
)
def test_a_stack_is_of_its_innermost_layer(frames, layer):
    """Libraries count for who called them; what stands at the bottom of all stacks counts for nothing."""
    assert layer_of([*BOTTOM, *frames]) == layer
    assert layer in LAYERS


def test_shares_are_of_all_samples():
    """Every layer has one, and together they are 1; what other threads do is nobody's."""
    loop = "thread (7): MainThread"
    told = shares(f"{loop};{BEHAVIOUR} 3\n{loop};{';'.join(BOTTOM)} 1\nthread (8): loading_0;{BEHAVIOUR} 9\n")

    assert told[GRPC] == 0.25
    assert told["reading, counting and timing the call"] == 0.75
    assert list(told) == list(LAYERS)
    assert sum(told.values()) == 1


def test_no_samples_are_an_error():
    """Else a table of nothing would say that nothing takes time."""
    with pytest.raises(ValueError, match="no sample"):
        shares(f"thread (8): loading_0;{BEHAVIOUR} 9")
