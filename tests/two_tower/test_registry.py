"""A registry finds checkpoints by version and label, and never shows half of anything."""

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import pytest

from two_tower.errors import InvalidNameError, RegistryError, UnknownVersionError
from two_tower.registry import Canary, Registry

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


def test_a_rollback_goes_to_what_was_named_before(registry: Registry) -> None:
    """Once more, it goes one further back, and not forward to what was left."""
    (registry.path / "v3").mkdir()
    for version in ("v1", "v2", "v2", "v3"):
        registry.set_label("stable", version, now=NOW)

    first = registry.roll_back("stable", now=NOW, reason="lists look odd")
    second = registry.roll_back("stable", now=NOW, reason="still odd")

    assert (first.version, second.version) == ("v2", "v1")
    assert [change.is_rollback for change in registry.label_history("stable")] == [False] * 4 + [True] * 2
    with pytest.raises(UnknownVersionError, match="has named no other version before"):
        registry.roll_back("stable", now=NOW, reason="odder")


def test_a_rollback_after_a_new_version_goes_to_where_the_last_one_went(registry: Registry) -> None:
    """What was rolled back from is not returned to."""
    (registry.path / "v3").mkdir()
    for version in ("v1", "v2"):
        registry.set_label("stable", version, now=NOW)
    registry.roll_back("stable", now=NOW, reason="odd")
    registry.set_label("stable", "v3", now=NOW)

    assert registry.roll_back("stable", now=NOW, reason="odd too").version == "v1"


def test_a_rollback_passes_over_what_is_gone(registry: Registry) -> None:
    """Only what can be served is gone back to."""
    (registry.path / "v3").mkdir()
    for version in ("v1", "v3", "v2"):
        registry.set_label("stable", version, now=NOW)
    (registry.path / "v3").rmdir()

    assert registry.roll_back("stable", now=NOW, reason="odd").version == "v1"


def test_a_canary_stands_beside_what_a_label_names(registry: Registry) -> None:
    """It lasts until the label is set again."""
    registry.set_label("stable", "v1", now=NOW, canary=Canary("v2", 5.0))
    begun = registry.label_history("stable")[-1]

    registry.set_label("stable", "v1", now=NOW)

    assert begun.canary == Canary("v2", 5.0)
    assert registry.label_history("stable")[-1].canary is None
    with pytest.raises(UnknownVersionError, match="no version 'v9'"):
        registry.set_label("stable", "v1", now=NOW, canary=Canary("v9", 5.0))


def test_many_writers_of_a_label_lose_no_change(registry: Registry) -> None:
    """Each adds to what the one before wrote."""
    with ThreadPoolExecutor(4) as writers:
        for written in [writers.submit(registry.set_label, "stable", "v1", now=NOW) for _ in range(40)]:
            written.result()

    assert len(registry.label_history("stable")) == 40


def test_a_label_with_an_impossible_canary_is_damaged(registry: Registry) -> None:
    """A share of nobody, or of more than all, is no share."""
    registry.set_label("stable", "v1", now=NOW, canary=Canary("v2", 5.0))
    path = registry.path / "labels" / "stable.json"
    path.write_text(path.read_text().replace("5.0", "500.0"))

    with pytest.raises(RegistryError, match="is damaged"):
        registry.label("stable")
