"""A drill on disks: the one that Redis and the registry lie on is full while features and a model are published."""

import asyncio
import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import pytest
from marquee.client.channel import open_sync_channel

from tests.chaos.checkpoints import Trained
from tests.chaos.conftest import Drill
from tests.chaos.small_disk import Disk
from tests.chaos.stack import ChaosStack
from trainer.publishing import Published, PublishError, publish

pytestmark = [pytest.mark.timeout(400), pytest.mark.chaos]


def publish_others(trained: Trained, address: str) -> Published:
    """Sends the same histories as of other users."""
    data = trained.snapshot.data
    others = dataclasses.replace(data, user_ids=[f"late-{user_id}" for user_id in data.user_ids])
    with open_sync_channel(address) as channel:
        return publish(channel, others, data.interactions)


def train_again(trained: Trained) -> subprocess.CompletedProcess[str]:
    """Runs `trainer train` into the registry, as a person does."""
    where = ["--data", str(trained.folder), "--registry", str(trained.registry.path)]
    how = ["--model", "two-tower-history", "--set", "epochs=1", "--no-calibrate", "--no-report"]
    command = [sys.executable, "-m", "trainer", "train", *where, *how]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "200"}
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)


def content(folder: Path) -> set[str]:
    """Returns the names in a registry."""
    return {path.name for path in folder.iterdir()}


async def test_disk_full_during_publish(stack: ChaosStack, drill: Drill, disk: Disk):
    """Writes are refused, reads answered; `publish` and `train` say why they end, leave nothing, and work with room."""
    # Only a file system of its own can be full without filling that of everybody else; the kernel lets root mount one.
    if not disk.can_be_filled:
        pytest.skip("mounting a disk that can be filled needs root")
    trained = stack.trained
    before = content(trained.registry.path)
    async with drill("disk full during publish") as load:
        with disk.full():
            await load.until_refused("REDIS_CANNOT_PERSIST", 5)
            with pytest.raises(PublishError, match="REDIS_CANNOT_PERSIST"):
                await asyncio.to_thread(publish_others, trained, stack.features.address)
            training = await asyncio.to_thread(train_again, trained)
        published = await asyncio.to_thread(publish_others, trained, stack.features.address)
        training_with_room = await asyncio.to_thread(train_again, trained)
    assert published.num_applied == published.num_entries
    assert training.returncode != 0
    assert "No space left on device" in training.stdout + training.stderr
    assert "Traceback" not in training.stderr
    assert training_with_room.returncode == 0, training_with_room.stderr
    assert len(content(trained.registry.path) - before) == 1
