"""What nobody needs is removed from a registry; what a label names, tries or may be rolled back to stays."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tests.toy_dataset import toy_dataset
from trainer.commands.app import make_app
from trainer.registry_pruning import superfluous_versions
from trainer.snapshot import Snapshot, hash_of_data
from trainer.training import Request, train
from two_tower.registry import Canary, Registry

LATER = datetime.now(UTC) + timedelta(days=1)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Registry:
    """A registry of eight checkpoints; the label of the first training is on the oldest."""
    registry = Registry(tmp_path_factory.mktemp("registry"))
    data = toy_dataset(num_users=20)
    request = Request("random", "random:0.1", calibrated=False, reported=False)
    for _ in range(8):
        train(Snapshot(data, Path("toy"), hash_of_data(data), 0), registry, request)
    return registry


def test_what_labels_need_and_the_newest_stay(made: Registry) -> None:
    """The present version of each label, former ones, a canary, and the newest of all."""
    versions = made.versions()
    made.set_label("stable", versions[1])
    made.set_label("stable", versions[3], canary=Canary(versions[4], 10.0))

    gone = superfluous_versions(made, 2, 0.0, LATER)

    # stable: 3 and 1, which it named before; 0 is too long ago. 4 is on trial; 6 and 7 are the newest.
    assert gone == [versions[0], versions[2], versions[5]]


def test_what_the_next_rollback_returns_to_stays(made: Registry) -> None:
    """What a rollback left is not counted among those that a label may need."""
    versions = made.versions()
    for version in (versions[0], versions[2], versions[5]):
        made.set_label("trial", version)
    made.roll_back("trial", reason="worse")

    gone = superfluous_versions(made, 2, 0.0, LATER)

    assert versions[5] in gone
    assert versions[0] not in gone
    assert made.roll_back("trial", reason="worse still").version == versions[0]


def test_the_young_stay(made: Registry) -> None:
    """Somebody may be about to label them."""
    assert superfluous_versions(made, 1, 3600.0, datetime.now(UTC)) == []


def test_one_whose_age_cannot_be_read_stays(made: Registry) -> None:
    """What nobody understands, nobody removes."""
    odd = made.path / "00000000-odd"
    odd.mkdir()

    assert odd.name not in superfluous_versions(made, 1, 0.0, LATER)


def test_what_is_no_checkpoint_does_not_count_among_the_newest(made: Registry) -> None:
    """Folders that somebody keeps there, however they are called, push none of the newest checkpoints out."""
    versions = [version for version in made.versions() if version[0] == "2"]
    for name in ("zz-notes", "zz-old"):
        (made.path / name).mkdir()

    gone = superfluous_versions(made, 2, 0.0, LATER)

    assert not {"zz-notes", "zz-old", *versions[-2:]} & set(gone)
    assert gone


def test_the_command_says_what_would_go_and_then_removes_it(made: Registry) -> None:
    """A second time there is nothing left to do. What is no checkpoint is named and not counted."""
    (made.path / "notes").mkdir()
    arguments = ["registry", "gc", "--registry", str(made.path), "--keep", "1", "--youngest-s", "0"]
    stable = made.label()

    planned = CliRunner().invoke(make_app(), [*arguments, "--dry-run"]).output.splitlines()
    before = made.versions()
    removed = CliRunner().invoke(make_app(), arguments).output.splitlines()
    again = CliRunner().invoke(make_app(), arguments).output.splitlines()

    others = [name for name in before if name[:2] != "20"]
    assert len(before) - len(others) == 8
    assert [line.partition(":")[0] for line in planned[:-1]] == [line.partition(":")[0] for line in removed[:-1]]
    assert again[:-1] == [f"{name}: left alone, it holds no manifest that can be read" for name in others]
    assert planned[-1] == removed[-1] == again[-1] == f"{len(made.versions()) - len(others)} versions stay"
    assert stable in made.versions()
    assert not list(made.path.glob(".*.partial-*"))
