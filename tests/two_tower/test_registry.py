"""A registry finds checkpoints by version and label, and never shows half of anything."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from two_tower.errors import InvalidNameError, RegistryError, UnknownVersionError
from two_tower.registry import Registry

NOW = datetime(2026, 5, 1, 12, 0, tzinfo=UTC)


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    """A registry with the versions v1 and v2."""
    for version in ("v2", "v1"):
        (tmp_path / version).mkdir()
    return Registry(tmp_path)


def test_a_registry_that_does_not_exist_is_empty(tmp_path: Path) -> None:
    """A service may start before the first training."""
    registry = Registry(tmp_path / "nowhere")

    assert registry.versions() == []
    assert registry.label() is None
    assert registry.labels() == {}


def test_versions_are_listed_oldest_first(registry: Registry) -> None:
    """Names sort by time; what is being written and the labels are not versions."""
    (registry.path / ".v3.partial-7").mkdir()
    (registry.path / "notes.txt").write_text("hello")
    registry.set_label("stable", "v1", now=NOW)

    assert registry.versions() == ["v1", "v2"]


def test_a_label_names_what_it_was_last_set_to(registry: Registry) -> None:
    """Setting a label again moves it and keeps where it was."""
    registry.set_label("stable", "v1", now=NOW, reason="first")
    registry.set_label("stable", "v2", now=NOW, reason="better")

    assert registry.label("stable") == "v2"
    assert registry.labels() == {"stable": "v2"}
    assert [(change.version, change.reason) for change in registry.label_history("stable")] == [
        ("v1", "first"),
        ("v2", "better"),
    ]


def test_a_label_cannot_name_what_does_not_exist(registry: Registry) -> None:
    """The message lists what there is, newest first, and the label stays as it was."""
    with pytest.raises(UnknownVersionError, match="no version 'v9'; it has v2, v1"):
        registry.set_label("stable", "v9", now=NOW)

    assert registry.label("stable") is None


@pytest.mark.parametrize("name", ["", "..", "../v1", "a/b", ".hidden", "labels", "x" * 65, "a\n", "ä"])
def test_names_that_could_leave_the_folder_are_refused(registry: Registry, name: str) -> None:
    """Neither a version nor a label can reach another place."""
    with pytest.raises(InvalidNameError):
        registry.path_of(name)
    with pytest.raises(InvalidNameError):
        registry.label(name)


@pytest.mark.parametrize("content", ["", "{}", "[]", "[1]", '[{"version": "../x", "set_at_ms": 1, "reason": ""}]', "["])
def test_a_damaged_label_says_so(registry: Registry, content: str) -> None:
    """A label file that somebody edited is an error that a service can wait out, never a guess."""
    (registry.path / "labels").mkdir()
    (registry.path / "labels" / "stable.json").write_text(content)

    with pytest.raises(RegistryError):
        registry.label("stable")


def test_a_file_in_place_of_the_registry_is_refused(tmp_path: Path) -> None:
    """A path that is no folder is told apart from an empty registry."""
    path = tmp_path / "registry"
    path.write_text("")

    with pytest.raises(RegistryError, match="cannot be read"):
        Registry(path).versions()


def test_new_versions_are_unique_and_sort_by_time(registry: Registry) -> None:
    """Two trainings that end in the same millisecond get two names."""
    first = registry.new_version(NOW)
    (registry.path / first).mkdir()

    second = registry.new_version(NOW)

    assert first == "20260501-120000-000"
    assert second > first
