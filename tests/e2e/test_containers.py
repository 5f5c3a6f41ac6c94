"""What `docker compose up` gives on a fresh machine. In the order of a day: up, ask, up again, restarts, down."""

import re
import time
from collections.abc import Callable

import pytest

from deploy.test_containers.compose import Project
from deploy.test_containers.engine import Engine, EngineError

pytestmark = pytest.mark.containers

SERVERS = ("redis", "feature_service", "model_service")


def wait_until(holds: Callable[[], bool], timeout_s: float) -> None:
    """Returns once the condition holds; fails if it does not in time."""
    give_up_at = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < give_up_at, f"still not so after {timeout_s} s"
        time.sleep(1)


def wait_for_health(stack: Project) -> None:
    """Returns once every server is healthy; fails with the log of the one that is not."""
    for service in SERVERS:
        try:
            wait_until(lambda service=service: stack.health(service) == "healthy", 120)  # type: ignore[misc]
        except AssertionError as error:
            raise AssertionError(f"{service}: {stack.compose('logs', '--tail=30', service)}") from error


def ask(stack: Project, *arguments: str) -> str:
    """Runs a command of the trainer in a container of its own and returns what it printed."""
    return stack.compose("run", "--rm", "--no-deps", "-T", "trainer", *arguments)


def versions(stack: Project) -> list[str]:
    """Returns the checkpoints in the registry's volume."""
    list_them = "from two_tower.registry import Registry; print(*Registry('/registry').versions())"
    command = ("run", "--rm", "--no-deps", "-T", "--entrypoint", "python", "trainer", "-c", list_them)
    return stack.compose(*command).split()


def test_the_gpu_overlay_hands_over_one_device(engine: Engine) -> None:
    """Compose reads the overlay; what it makes of it takes a GPU to find out."""
    project = Project(engine, "marquee-gpu", {}, ("docker-compose.yml", "deploy/compose.gpu.yml"))

    config = project.compose("config")

    for line in ("TORCH_VARIANT: cuda", "MODEL_DEVICE: cuda", "driver: nvidia", "count: 1", "- gpu"):
        assert config.count(line) == 1


def test_up_trains_publishes_and_serves(stack: Project) -> None:
    """With no setting at all the trainer makes data, trains one checkpoint, publishes and ends; the servers serve."""
    wait_for_health(stack)

    trainer = stack.inspect("trainer")["State"]
    assert (trainer["Status"], trainer["ExitCode"]) == ("exited", 0)
    assert len(versions(stack)) == 1


def test_another_container_gets_a_rating(stack: Project) -> None:
    """PredictRating answers over the network of the project."""
    output = ask(stack, "predict", "--model-service", "model_service:50052", "--user", "1", "--movie", "1")

    assert "PERSONAL" in output
    (rating,) = re.findall(r" (\d\.\d{3}) ", output)
    assert 1 <= float(rating) <= 5


def test_another_container_gets_recommendations(stack: Project) -> None:
    """TopK answers with as many movies as were asked for."""
    output = ask(stack, "topk", "--model-service", "model_service:50052", "--user", "1", "-k", "7")

    assert re.findall(r"^│ +(\d+) │", output, flags=re.MULTILINE) == list("1234567")


def test_a_second_up_trains_nothing(stack: Project) -> None:
    """The trainer finds the checkpoint and the published features, and ends; the servers stay as they are."""
    before = versions(stack), [stack.container_id(server) for server in SERVERS]

    stack.compose("up", "--detach", "--no-build", timeout_s=120)
    wait_until(lambda: stack.inspect("trainer")["State"]["Status"] == "exited", 60)

    assert stack.inspect("trainer")["State"]["ExitCode"] == 0
    assert (versions(stack), [stack.container_id(server) for server in SERVERS]) == before


@pytest.mark.parametrize("service", SERVERS)
def test_no_process_of_a_server_is_root(stack: Project, service: str) -> None:
    """Whatever breaks out of a server is nobody on the host."""
    header, *rows = stack.engine.run("top", stack.container_id(service), "-eo", "uid,pid,comm").splitlines()

    assert header.split()[0] == "UID"
    assert rows
    assert all(row.split()[0] != "0" for row in rows)


@pytest.mark.parametrize("service", [*SERVERS, "trainer"])
def test_a_container_has_no_more_rights_than_it_needs(stack: Project, service: str) -> None:
    """A user other than root, no capability, a root that cannot be written."""
    container = stack.inspect(service)

    assert container["Config"]["User"].split(":")[0] not in ("", "0", "root")
    assert container["HostConfig"]["ReadonlyRootfs"] is True
    assert container["HostConfig"]["CapDrop"] == ["ALL"]


def test_redis_asks_who_is_there(stack: Project) -> None:
    """Without a name there is no answer; feature_service may not empty the store, and has nobody else's password."""
    cli = ("exec", "-T", "redis", "redis-cli", "--no-auth-warning")
    as_feature_service = 'redis-cli --no-auth-warning --user feature_service --pass "$(cat /passwords/*-password)" '

    anonymous = stack.compose(*cli, "dbsize")
    flushing = stack.compose("exec", "-T", "redis", "sh", "-c", as_feature_service + "flushall")
    secrets = stack.compose("exec", "-T", "feature_service", "ls", "/passwords")

    assert "NOAUTH" in anonymous
    assert "NOPERM" in flushing
    assert secrets.split() == ["feature_service-password"]


def test_ports_are_open_to_this_machine_only(stack: Project) -> None:
    """Redis is not published; the services are, on the loopback address."""
    published = {service: stack.inspect(service)["NetworkSettings"]["Ports"] for service in SERVERS}

    assert not any(published["redis"].values())
    for service in ("feature_service", "model_service"):
        bindings = [binding for ports in published[service].values() for binding in ports or []]
        assert [binding["HostIp"] for binding in bindings] == ["127.0.0.1"]


@pytest.mark.parametrize("service", ["feature_service", "model_service", "trainer"])
def test_images_keep_nothing_of_their_build(engine: Engine, images: dict[str, str], service: str) -> None:
    """Neither pip and its settings nor wheels of the build machine are in an image."""
    look = "import importlib.util, os; print([importlib.util.find_spec('pip'), *map(os.path.exists, ('/wheels', "
    look += "'/run/secrets/pip_conf', '/run/secrets/ca_bundle', '/root/.cache/pip'))])"

    found = engine.run("run", "--rm", "--entrypoint", "python", images[service], "-c", look)

    assert found.strip() == "[None, False, False, False, False]"


def test_features_survive_a_restart_of_redis(stack: Project) -> None:
    """What was published is in the append-only file; the services find Redis again by themselves."""
    stack.compose("restart", "redis")
    wait_for_health(stack)

    output = ask(stack, "topk", "--model-service", "model_service:50052", "--user", "1", "-k", "7")

    assert "PERSONAL" in output


@pytest.mark.parametrize("service", ["model_service", "feature_service"])
def test_a_server_stops_when_told_to(stack: Project, service: str) -> None:
    """SIGTERM reaches the process, which drains and exits by itself instead of being killed."""
    stack.compose("stop", "--timeout", "30", service)

    assert stack.inspect(service)["State"]["ExitCode"] == 0


def test_down_leaves_nothing(stack: Project) -> None:
    """Containers, volumes and networks are gone."""
    assert stack.left_over()

    stack.compose("down", "--volumes", "--timeout", "10")

    assert stack.left_over() == []
    with pytest.raises(EngineError, match="redis has 0 containers"):
        stack.container_id("redis")
