"""All ports with TLS and tokens: callers, model_service, its hop to feature_service, the trainer, an operator."""

import asyncio
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest
from marquee.client.channel import open_channel
from marquee.client.credentials import Credentials
from marquee.client.errors import read_error
from marquee.v1 import feature_service_pb2 as fpb
from marquee.v1 import (
    feature_service_pb2_grpc,
    model_admin_pb2,
    model_admin_pb2_grpc,
    model_service_pb2_grpc,
    movie_pb2,
    user_pb2,
)
from marquee.v1 import model_service_pb2 as pb
from structlog.testing import capture_logs
from typer.testing import CliRunner

from feature_service.__main__ import serving as feature_serving
from feature_service.settings import FeatureSettings
from model_service.__main__ import serve
from model_service.settings import ModelSettings
from service_runtime.settings import SettingsError
from tests.feature_server import until_ready
from tests.model_service.conftest import until_serving
from tests.service_runtime.secured import Authority, line
from trainer.commands.app import make_app
from two_tower.registry import Registry

HOP_METHODS = "methods=BatchGetUsers,ListMovies,StreamChanges,GetStoreInfo"


@dataclass
class Place:
    """Files of a secured stack, and where its feature_service listens."""

    folder: Path
    authority: Authority
    feature_address: str = ""

    def write(self, name: str, text: str) -> Path:
        """Writes a file and returns where it is."""
        file = self.folder / name
        file.write_text(text)
        return file

    def caller(self, token: str) -> Credentials:
        """Returns who has a token and a certificate of our authority."""
        return Credentials(True, self.authority.file, *self.authority.issue("caller"), token)

    def model_settings(self, registry: Registry, **changed) -> ModelSettings:
        """Returns what model_service is told."""
        certificate, key = self.authority.issue("model")
        told = {
            "registry": registry.path,
            "feature_service": self.feature_address,
            "feature_tls_ca_file": self.authority.file,
            "feature_tls_cert_file": certificate,
            "feature_tls_key_file": key,
            "feature_token_file": self.write("hop-token", "token-of-model\n"),
            "tls_cert_file": certificate,
            "tls_key_file": key,
            "tokens_file": self.write("web-tokens", line("web", "token-of-web")),
            "near_cache_bytes": 1_000_000,
            "listen": "127.0.0.1:0",
            "admin_listen": "off",
            "metrics_listen": "off",
            "retry_s": 0.05,
            "drain_timeout_s": 1.0,
            **changed,
        }
        return ModelSettings(**told)


@pytest.fixture
async def place(tmp_path, redis_settings) -> AsyncIterator[Place]:
    """A feature_service that asks for certificates and tokens, with three movies and a user."""
    place = Place(tmp_path, Authority(tmp_path))
    certificate, key = place.authority.issue("features")
    tokens = line("model", "token-of-model", HOP_METHODS) + line("trainer", "token-of-trainer")
    settings = FeatureSettings(
        **redis_settings,
        listen="127.0.0.1:0",
        drain_timeout_s=1.0,
        tls_cert_file=certificate,
        tls_key_file=key,
        tls_client_ca_file=place.authority.file,
        tokens_file=place.write("feature-tokens", tokens),
    )
    async with (
        feature_serving(settings) as server,
        open_channel(server.address, credentials=place.caller("token-of-trainer")) as channel,
    ):
        place.feature_address = server.address
        await until_ready(channel)
        stub = feature_service_pb2_grpc.FeatureServiceStub(channel)
        movies = [fpb.MovieUpsert(movie=movie_pb2.Movie(movie_id=movie_id)) for movie_id in ("heat", "big", "up")]
        await stub.BatchUpsertMovies(fpb.BatchUpsertMoviesRequest(movies=movies))
        ann = fpb.UserUpsert(user_id="ann", profile=user_pb2.UserProfile(age=30))
        await stub.BatchUpsertUsers(fpb.BatchUpsertUsersRequest(users=[ann]))
        yield place


async def test_all_ports_are_secured_and_the_stack_answers(place, registry, train):
    """A caller, the trainer's commands and an operator each get theirs; nobody gets what is another's."""
    train("v1")
    with socket.create_server(("127.0.0.1", 0)) as free:
        admin_address = f"127.0.0.1:{free.getsockname()[1]}"
    admin_tokens = place.write("admin-tokens", line("operator", "token-of-operator"))
    told = place.model_settings(registry, admin_listen=admin_address, admin_tokens_file=admin_tokens)
    top = pb.TopKRequest(user=pb.UserSelector(user_id="ann"), k=3)
    async with (
        serve(told) as server,
        open_channel(server.address, credentials=place.caller("token-of-web")) as as_web,
        open_channel(server.address, credentials=place.caller("token-of-operator")) as as_operator,
        open_channel(admin_address, credentials=place.caller("token-of-web")) as admin_as_web,
        open_channel(admin_address, credentials=place.caller("token-of-operator")) as admin,
    ):
        await until_serving(as_web)

        answer = await model_service_pb2_grpc.ModelServiceStub(as_web).TopK(top)
        listed = await model_admin_pb2_grpc.ModelAdminServiceStub(admin).ListModels(model_admin_pb2.ListModelsRequest())
        asked = await ask_as_trainer(server.address, place)
        with pytest.raises(grpc.aio.AioRpcError) as not_his:
            await model_service_pb2_grpc.ModelServiceStub(as_operator).TopK(top)
        stub = model_admin_pb2_grpc.ModelAdminServiceStub(admin_as_web)
        with pytest.raises(grpc.aio.AioRpcError) as not_hers:
            await stub.ListModels(model_admin_pb2.ListModelsRequest())

    assert [movie.movie_id for movie in answer.movies]
    assert answer.source == pb.ANSWER_SOURCE_PERSONAL
    assert [model.model_version for model in listed.models] == ["v1"]
    assert "PERSONAL" in asked
    for refused in (not_his, not_hers):
        assert read_error(refused.value).reason == "TOKEN_UNKNOWN"


async def ask_as_trainer(address: str, place: Place) -> str:
    """Runs `trainer topk` with credentials from its environment and returns what it printed."""
    environment = {
        "MARQUEE_TLS_CA_FILE": str(place.authority.file),
        "MARQUEE_TOKEN_FILE": str(place.write("web-token", "token-of-web")),
    }
    command = ["topk", "--model-service", address, "--user", "ann", "-k", "3"]
    return (await asyncio.to_thread(CliRunner().invoke, make_app(), command, env=environment)).output


async def test_model_service_has_the_rights_that_it_needs(place):
    """Its token reads; with it nobody writes an event."""
    async with open_channel(place.feature_address, credentials=place.caller("token-of-model")) as channel:
        stub = feature_service_pb2_grpc.FeatureServiceStub(channel)
        read = await stub.BatchGetUsers(fpb.BatchGetUsersRequest(user_ids=["ann"]))
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await stub.WriteEvents(fpb.WriteEventsRequest())

    assert read.users[0].profile.age == 30
    assert read_error(refused.value).code is grpc.StatusCode.PERMISSION_DENIED


async def test_a_token_that_feature_service_does_not_know_is_a_clear_reason(place, registry, train):
    """model_service says why it is not ready, without the token, and is ready once the file is right."""
    train("v1")
    told = place.model_settings(registry, feature_token_file=place.write("hop-token-2", "canary-token"))
    with capture_logs() as logs:
        async with serve(told) as server:
            async with asyncio.timeout(30):
                while not reasons(logs):  # noqa: ASYNC110  nobody else is told of a line
                    await asyncio.sleep(0.02)
            place.write("hop-token-2", "token-of-model")
            async with open_channel(server.address, credentials=place.caller("token-of-web")) as channel:
                await until_serving(channel)

    assert "nobody knows this token" in reasons(logs)[0]
    assert "canary-token" not in str(logs)


def reasons(logs: list) -> list[str]:
    """Returns for what reasons the catalogue was missing."""
    return [entry["reason"] for entry in logs if entry.get("dependency") == "catalogue" and "reason" in entry]


@pytest.mark.parametrize(
    ("variables", "problem"),
    [
        ({"TOKENS_FILE": "{tokens}"}, "MODEL_TOKENS_FILE without MODEL_ADMIN_TOKENS_FILE"),
        ({"TOKENS_FILE": "{tokens}", "ADMIN_TOKENS_FILE": "{tokens}"}, "every caller could move models"),
        ({"TLS_CERT_FILE": "{tokens}"}, "^MODEL_TLS_KEY_FILE is missing: .* MODEL_TLS_CERT_FILE is set$"),
        ({"TLS_KEY_FILE": "{tokens}"}, "^MODEL_TLS_CERT_FILE is missing: .* MODEL_TLS_KEY_FILE is set$"),
        ({"TLS_CLIENT_CA_FILE": "{tokens}"}, "^MODEL_TLS_CLIENT_CA_FILE needs MODEL_TLS_CERT_FILE and MODEL_TLS_KEY_F"),
        ({"TLS_CERT_FILE": "/none", "TLS_KEY_FILE": "/none"}, "MODEL_TLS_CERT_FILE: /none is no file"),
        (
            {"FEATURE_TLS_CERT_FILE": "{tokens}"},
            "^MODEL_FEATURE_TLS_KEY_FILE is missing: .* MODEL_FEATURE_TLS_CERT_FILE",
        ),
        (
            {"FEATURE_TLS_KEY_FILE": "{tokens}"},
            "^MODEL_FEATURE_TLS_CERT_FILE is missing: .* MODEL_FEATURE_TLS_KEY_FILE",
        ),
        ({"FEATURE_TLS_CA_FILE": "{tokens}"}, "^MODEL_FEATURE_TLS_CA_FILE: .*tokens is not in PEM"),
        ({"FEATURE_TLS_CA_FILE": "/none"}, "^MODEL_FEATURE_TLS_CA_FILE: /none cannot be read: No such file"),
        (
            {"FEATURE_TOKEN": "canary", "FEATURE_SERVICE": "features:50051"},
            "^MODEL_FEATURE_TOKEN: .* over TLS only; set MODEL_FEATURE_TLS, or MODEL_FEATURE_TOKEN_IN_CLEAR",
        ),
        ({"FEATURE_TOKEN": "two words"}, "^MODEL_FEATURE_TOKEN must be one word"),
        ({"FEATURE_TOKEN_FILE": "/none"}, "^MODEL_FEATURE_TOKEN_FILE: /none cannot be read"),
        (
            {"FEATURE_TOKEN": "canary", "FEATURE_TOKEN_FILE": "{tokens}"},
            "^MODEL_FEATURE_TOKEN and MODEL_FEATURE_TOKEN_FILE are both set: one is enough",
        ),
    ],
)
def test_settings_that_leave_a_door_open_are_refused(monkeypatch, tmp_path, variables, problem):
    """Before anything starts, and without a word of a secret."""
    tokens = tmp_path / "tokens"
    tokens.write_text(line("web", "canary"))
    monkeypatch.setenv("MODEL_REGISTRY", str(tmp_path))
    for name, value in variables.items():
        monkeypatch.setenv(f"MODEL_{name}", value.format(tokens=tokens))

    with pytest.raises(SettingsError, match=problem) as raised:
        ModelSettings.load()

    assert "canary" not in str(raised.value)
