"""Settings are read once, and what is wrong with them is said at once."""

import pytest
from pydantic import Field, ValidationError
from pydantic_settings import SettingsConfigDict

from service_runtime.settings import ListenAddress, ReadableFile, ServiceSettings, SettingsError


class OvenSettings(ServiceSettings):
    """Settings of an oven."""

    model_config = SettingsConfigDict(env_prefix="OVEN_")

    listen: ListenAddress = Field(default="127.0.0.1:1", description="Where to listen.")
    heat_c: int = Field(default=180, ge=30, le=300, description="Heat, in degrees Celsius.")
    racks: int = Field(ge=1, description="Racks inside.")
    dishes: tuple[str, ...] = Field(default=(), description="What is inside, as a JSON list.")
    recipe_file: ReadableFile | None = Field(default=None, description="What to do.")


def test_values_come_from_the_environment_and_stay(monkeypatch):
    """What the environment says holds, and cannot be changed afterwards."""
    monkeypatch.setenv("OVEN_RACKS", "3")
    monkeypatch.setenv("OVEN_HEAT_C", "")

    settings = OvenSettings.load()

    assert (settings.racks, settings.heat_c) == (3, 180)
    with pytest.raises(ValidationError):
        settings.racks = 4


def test_all_problems_are_listed_at_once(monkeypatch):
    """A misspelt variable, a value out of bounds and a missing one appear together."""
    monkeypatch.setenv("OVEN_LISTN", "x")
    monkeypatch.setenv("OVEN_HEAT_C", "301")

    with pytest.raises(SettingsError) as raised:
        OvenSettings.load()

    assert raised.value.problems[0] == "OVEN_LISTN is not a setting; did you mean OVEN_LISTEN?"
    assert "OVEN_HEAT_C: Input should be less than or equal to 300" in raised.value.problems
    assert "OVEN_RACKS is required: Racks inside." in raised.value.problems


@pytest.mark.parametrize("address", ["127.0.0.1:65536", "127.0.0.1:", ":1", "50051", "127.0.0.1:-1"])
def test_a_port_that_cannot_be_is_refused(monkeypatch, address):
    """An address is refused here, for gRPC would listen on another port than the one that was asked for."""
    monkeypatch.setenv("OVEN_RACKS", "1")
    monkeypatch.setenv("OVEN_LISTEN", address)

    with pytest.raises(SettingsError) as raised:
        OvenSettings.load()

    assert raised.value.problems == ["OVEN_LISTEN: must be host:port with a port of 0 to 65535"]


@pytest.mark.parametrize(
    ("variable", "value", "problem"),
    [
        ("OVEN_DISHES", "pie", 'OVEN_DISHES must be JSON, such as ["a", "b"]'),
        ("OVEN_DISHES", "[" * 100, 'OVEN_DISHES must be JSON, such as ["a", "b"]'),
        ("OVEN_RECIPE_FILE", "a" * 5000, "OVEN_RECIPE_FILE: File name too long"),
        ("OVEN_RECIPE_FILE", "\udcff", "OVEN_RECIPE_FILE is not UTF-8"),
        ("OVEN_LISTEN", "\udcff:1", "OVEN_LISTEN is not UTF-8"),
    ],
)
def test_garbage_is_named_in_one_line(monkeypatch, capsys, variable, value, problem):
    """Whatever the libraries below make of it."""
    monkeypatch.setenv("OVEN_RACKS", "3")
    monkeypatch.setenv(variable, value)

    with pytest.raises(SystemExit) as ended:
        OvenSettings.load_or_exit([])

    assert ended.value.code == 2
    assert capsys.readouterr().err == f"{problem}\n"


def test_kubernetes_service_links_are_not_mistakes(monkeypatch):
    """Variables that Kubernetes injects for a service called like us are ignored."""
    monkeypatch.setenv("OVEN_RACKS", "1")
    for name in ("OVEN_SERVICE_HOST", "OVEN_SERVICE_PORT_GRPC", "OVEN_PORT", "OVEN_PORT_50051_TCP_ADDR"):
        monkeypatch.setenv(name, "tcp://10.0.0.1:50051")

    assert OvenSettings.load().racks == 1


def test_wrong_settings_exit_2(monkeypatch, capsys):
    """A process with wrong settings prints them and ends with status 2."""
    monkeypatch.setenv("OVEN_HEAT_C", "warm")

    with pytest.raises(SystemExit) as ended:
        OvenSettings.load_or_exit([])

    assert ended.value.code == 2
    printed = capsys.readouterr().err
    assert "OVEN_HEAT_C" in printed
    assert "OVEN_RACKS" in printed


def test_help_lists_every_setting(capsys):
    """--help names each variable, its default, its bounds and its meaning."""
    with pytest.raises(SystemExit) as ended:
        OvenSettings.load_or_exit(["--help"])

    printed = capsys.readouterr().out
    assert ended.value.code == 0
    assert "OVEN_HEAT_C  (default 180, >= 30, <= 300)\n    Heat, in degrees Celsius." in printed
    assert "OVEN_RACKS  (required, >= 1)" in printed
    assert "OVEN_LOG_LEVEL" in printed


def test_a_setting_without_description_is_refused():
    """Nobody adds a setting that --help cannot explain."""
    with pytest.raises(TypeError, match="door"):

        class MuteSettings(ServiceSettings):
            door: str = "left"
