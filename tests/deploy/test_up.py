"""`make up` takes over what `make demo` trained, and nothing else."""

from datetime import UTC, datetime
from pathlib import Path

import pytest
from rich.console import Console

from deploy.local import demo, up
from tests.toy_dataset import toy_dataset
from trainer.snapshot import Snapshot, hash_of_data
from trainer.training import Request, train
from two_tower.registry import Registry

NOW = datetime(2026, 5, 1, tzinfo=UTC)
OURS, THEIRS = Registry(up.FOLDER / "registry"), Registry(demo.FOLDER / "registry")
"""Below the folder that a test runs in."""


def trained(registry: Registry) -> str:
    """Trains a model that guesses, and gives it the label that services follow."""
    data = toy_dataset(num_users=20)
    request = Request("random", "random:0.1", calibrated=False, reported=False)
    version = train(Snapshot(data, Path("toy"), hash_of_data(data), 0), registry, request).folder.name
    registry.set_label("stable", version, now=NOW, reason="made")
    return version


@pytest.fixture(autouse=True)
def demonstrated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The version that a demo on made-up data left in an otherwise empty folder."""
    monkeypatch.chdir(tmp_path)
    (demo.FOLDER / "data").mkdir(parents=True)
    (demo.FOLDER / "data" / "u.data").write_text("1\t2\t3\t4\n", encoding="utf-8")
    return trained(THEIRS)


def test_what_the_demo_trained_is_served_without_training_it_again(demonstrated: str) -> None:
    """With the data that it was trained on, which are published beside it."""
    data, version = up.prepare(Console(), OURS, None)

    assert version == demonstrated
    assert OURS.label("stable") == demonstrated
    assert [path.name for path in Path(data).iterdir()] == ["u.data"]


def test_what_the_demo_published_stays_with_it() -> None:
    """Its snapshot is of its own store, and a rebuild of ours would refuse to go on from it."""
    (THEIRS.path / "snapshots" / "s1").mkdir(parents=True)

    up.take_over_demo(Console(), up.FOLDER / "data", OURS)

    assert not (OURS.path / "snapshots").exists()


def test_what_is_trained_stays(demonstrated: str) -> None:
    """A demo that came later changes nothing."""
    own = trained(OURS)

    up.take_over_demo(Console(), up.FOLDER / "data", OURS)

    assert OURS.versions() == [own]
    assert own != demonstrated
    assert not (up.FOLDER / "data").exists()


def test_a_demo_on_data_of_somebody_is_left_alone() -> None:
    """It made no data up, so its model belongs to other ones."""
    (demo.FOLDER / "data" / "u.data").unlink()
    (demo.FOLDER / "data").rmdir()

    up.take_over_demo(Console(), up.FOLDER / "data", OURS)

    assert OURS.versions() == []
