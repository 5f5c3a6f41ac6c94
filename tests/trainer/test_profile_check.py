"""Who wants demographics of everybody is told at once that they are missing."""

from dataclasses import replace
from pathlib import Path

import pytest

from tests.toy_dataset import toy_dataset
from trainer.errors import DataError
from trainer.profile_check import require_profiles
from trainer.snapshot import Snapshot, hash_of_data
from trainer.training import Request, train
from two_tower.registry import Registry


def test_a_training_that_requires_profiles_refuses_data_without(tmp_path: Path) -> None:
    """The message counts what is missing and says what would be right; nothing is written."""
    data = toy_dataset()
    snapshot = Snapshot(data, Path("toy"), hash_of_data(data), 1_600_000_000_000)

    with pytest.raises(DataError, match="of 60 users are missing: gender of 1, age of 1, occupation of 1") as refused:
        train(snapshot, Registry(tmp_path / "registry"), Request(model="mean", require_profile=True))

    assert "--users" in str(refused.value)
    assert not (tmp_path / "registry").exists()


def test_users_without_interactions_need_no_profile() -> None:
    """Only who is learnt from is looked at."""
    data = toy_dataset()
    others = data.interactions.user_rows != len(data.user_ids) - 1

    require_profiles(replace(data, interactions=data.interactions.take(others)))
