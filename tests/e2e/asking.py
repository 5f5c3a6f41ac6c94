"""Asks the running stack: by a container of its own, or through the ports that are open to this machine."""

import json
from typing import Any

from marquee.client.channel import open_sync_channel
from marquee.v1 import model_service_pb2 as pb
from marquee.v1.model_service_pb2_grpc import ModelServiceStub

from deploy.test_containers.compose import Project

_TIMEOUT_S = 30.0


def ask(stack: Project, *arguments: str) -> str:
    """Runs a command of the trainer in a container of its own and returns what it printed."""
    return stack.compose("run", "--rm", "--no-deps", "-T", "trainer", *arguments, timeout_s=600)


def address_of(stack: Project, service: str) -> str:
    """Returns where a service can be reached from this machine."""
    return f"127.0.0.1:{stack.settings['FEATURE_PORT' if service == 'feature_service' else 'MODEL_PORT']}"


def serving_version(stack: Project) -> str:
    """Returns which version answers."""
    request = pb.PredictRatingRequest(user=pb.UserSelector(user_id="1"), movie_id="1")
    with open_sync_channel(address_of(stack, "model_service")) as channel:
        stub = ModelServiceStub(channel)
        return str(stub.PredictRating(request, timeout=_TIMEOUT_S).model_version)


def journal(stack: Project) -> dict[str, Any]:
    """Returns how far rebuilding has come: `run` is under way or None, `results` are over."""
    read = ("exec", "-T", "model_service", "sh", "-c", "cat /registry/rebuild.json 2>/dev/null || true")
    return json.loads(stack.compose(*read).strip() or '{"run": null, "results": []}')
