"""What an operator sees of the models of a replica, and how he moves them."""

import socket
from contextlib import asynccontextmanager

import grpc
import pytest
from marquee.client.channel import open_channel
from marquee.client.errors import read_error
from marquee.v1 import model_admin_pb2 as pb
from marquee.v1 import model_admin_pb2_grpc

from tests.model_service.asking import rate, until_served


@pytest.fixture
def operate(start):
    """Runs a model service with its admin port; gives a stub of both services."""

    @asynccontextmanager
    async def run(**settings):
        with socket.create_server(("127.0.0.1", 0)) as free:
            address = f"127.0.0.1:{free.getsockname()[1]}"
        async with start(admin_listen=address, **settings) as model, open_channel(address) as channel:
            yield model, model_admin_pb2_grpc.ModelAdminServiceStub(channel)

    return run


async def refusal(call):
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await call
    return read_error(raised.value)


async def test_versions_and_labels_are_listed_newest_first(operate, train, registry):
    """With what this replica does with each, and what each label named before."""
    train("v1")
    train("v2")
    train("v3", label="aside")
    (registry.path / "v3" / "manifest.json").write_text("{}")
    async with operate() as (_, admin):
        refused = await refusal(admin.LoadModel(pb.LoadModelRequest(model_version="v3")))
        listed = await admin.ListModels(pb.ListModelsRequest())

    states = {model.model_version: (model.state, model.serving, list(model.labels)) for model in listed.models}
    assert list(states) == ["v3", "v2", "v1"]
    assert states == {
        "v1": (pb.MODEL_STATE_AVAILABLE, False, []),
        "v2": (pb.MODEL_STATE_RESIDENT, True, ["stable"]),
        "v3": (pb.MODEL_STATE_FAILED, False, ["aside"]),
    }
    assert listed.models[1].model == "hand-made"
    assert listed.models[1].HasField("loaded_at")
    assert refused.code is grpc.StatusCode.FAILED_PRECONDITION
    assert refused.reason == "MODEL_REFUSED"
    assert listed.models[0].reason in refused.message
    assert listed.serving_label == "stable"
    assert {label.name: [change.model_version for change in label.changes] for label in listed.labels} == {
        "aside": ["v3"],
        "stable": ["v2", "v1"],
    }


async def test_a_loaded_version_answers_who_names_it(operate, train):
    """It serves nobody else, and of many only the newest stay."""
    train("v1")
    for version in ("v2", "v3", "v4"):
        train(version, label="aside")
    async with operate() as (model, admin):
        for version in ("v2", "v3", "v4"):
            loaded = await admin.LoadModel(pb.LoadModelRequest(model_version=version))
            assert loaded.model.state == pb.MODEL_STATE_RESIDENT
            assert (await model.PredictRating(rate(model_version=version))).model_version == version
        assert (await model.PredictRating(rate())).model_version == "v1"


async def test_a_label_is_set_and_rolled_back(operate, train, registry):
    """All replicas follow, for it is in the registry, and its history says who wanted what."""
    train("v1")
    train("v2", label="aside")
    async with operate() as (model, admin):
        moved = await admin.SetLabel(pb.SetLabelRequest(label="stable", model_version="v2", reason="trial is over"))
        await until_served(model, "v2")
        back = await admin.Rollback(pb.RollbackRequest(label="stable", reason="lists look odd"))
        await until_served(model, "v1")
        further = await refusal(admin.Rollback(pb.RollbackRequest(label="stable", reason="odder")))

    assert (moved.label.changes[0].model_version, moved.label.changes[0].reason) == ("v2", "trial is over")
    assert [change.model_version for change in back.label.changes] == ["v1", "v2", "v1"]
    assert (further.code, further.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "NOTHING_TO_ROLL_BACK_TO")
    assert [change.reason for change in registry.label_history("stable")][1:] == ["trial is over", "lists look odd"]


async def test_a_canary_is_begun_and_ended(operate, train):
    """What the label names stays; setting the label again ends the trial."""
    train("v1")
    train("v2", label="aside")
    everybody = pb.Canary(model_version="v2", percent=100)
    async with operate() as (model, admin):
        begun = await admin.SetLabel(pb.SetLabelRequest(label="stable", reason="trial", canary=everybody))
        await until_served(model, "v2")
        ended = await admin.SetLabel(pb.SetLabelRequest(label="stable", reason="trial is over"))
        await until_served(model, "v1")

    assert (begun.label.changes[0].model_version, begun.label.changes[0].canary) == ("v1", everybody)
    assert not ended.label.changes[0].HasField("canary")


async def test_nothing_is_moved_by_a_request_that_is_wrong(operate, train, registry):
    """Each refusal names the field; a version that cannot be served gets no label."""
    train("v1")
    train("v2", label="aside")
    (registry.path / "v2" / "weights.safetensors").write_bytes(b"")
    set_label = pb.SetLabelRequest
    wrong = {
        "reason": set_label(label="stable", model_version="v1"),
        "canary.percent": set_label(label="stable", reason="x", canary=pb.Canary(model_version="v1", percent=0)),
        "label": set_label(label="../etc", model_version="v1", reason="x"),
        "model_version": set_label(label="stable", model_version="/etc", reason="x"),
        "canary.model_version": set_label(label="stable", reason="x", canary=pb.Canary(model_version="", percent=5)),
    }
    async with operate() as (_, admin):
        for field, request in wrong.items():
            error = await refusal(admin.SetLabel(request))
            assert error.code is grpc.StatusCode.INVALID_ARGUMENT
            assert [violation.field for violation in error.violations] == [field]
        unlabelled = await refusal(admin.SetLabel(set_label(label="fresh", reason="x")))
        refused = await refusal(admin.SetLabel(set_label(label="stable", model_version="v2", reason="x")))
        absent = await refusal(admin.LoadModel(pb.LoadModelRequest(model_version="v9")))

    assert [violation.field for violation in unlabelled.violations] == ["model_version"]
    assert refused.reason == "MODEL_REFUSED"
    assert (absent.reason, absent.missing_ids) == ("MODEL_NOT_FOUND", ["v9"])
    assert len(registry.label_history("stable")) == 1


async def test_the_port_of_callers_moves_no_model(operate, train):
    """What an operator may do is not to be had where everybody calls."""
    train("v1")
    async with operate() as (model, _):
        admin = model_admin_pb2_grpc.ModelAdminServiceStub(model.channel)
        error = await refusal(admin.ListModels(pb.ListModelsRequest()))

    assert error.code is grpc.StatusCode.UNIMPLEMENTED
