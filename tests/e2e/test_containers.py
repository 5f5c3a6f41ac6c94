"""What `docker compose up` gives on a fresh machine: a stack that answers, whose containers may do little."""

import re

import pytest

from deploy.test_containers.compose import Project
from deploy.test_containers.engine import Engine
from tests.e2e.asking import ask
from tests.e2e.outages import start_s
from tests.e2e.waiting import SERVERS, wait_for_health, wait_until

pytestmark = pytest.mark.containers
# On one busy core; what a start should take is printed.
STARTS_WITHIN_S = 60.0


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


@pytest.mark.parametrize("service", SERVERS)
def test_a_server_starts_in_seconds(stack: Project, service: str) -> None:
    """From the start of its process until it can do its work; printed, for the operator who plans a restart."""
    wait_for_health(stack)

    took_s = start_s(stack, service)

    print(f"{service}: at work {took_s:.1f} s after its start")
    assert took_s < STARTS_WITHIN_S


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


@pytest.mark.parametrize("service", [*SERVERS, "trainer", "redis_password"])
def test_a_container_has_no_more_rights_than_it_needs(stack: Project, service: str) -> None:
    """A user other than root, no capability, a root that cannot be written."""
    container = stack.inspect(service)

    assert container["Config"]["User"].split(":")[0] not in ("", "0", "root")
    assert container["HostConfig"]["ReadonlyRootfs"] is True
    assert container["HostConfig"]["CapDrop"] == ["ALL"]


@pytest.mark.parametrize("service", SERVERS)
def test_the_kernel_says_so_too(stack: Project, service: str) -> None:
    """What runs in a container holds no capability, can get none, and cannot write where it was not told to."""
    look = "grep -E '^(CapPrm|CapEff|CapBnd|NoNewPrivs)' /proc/1/status; touch /etc/written 2>&1; echo $?"

    *told, complaint, status = stack.compose("exec", "-T", service, "sh", "-c", look).splitlines()

    assert [int(line.split()[1], 16) for line in told] == [0, 0, 0, 1]
    assert "Read-only file system" in complaint
    assert status != "0"


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
