"""Makes a small registry and publishes what its model learnt from. Knows the trainer; knows no fault."""

from dataclasses import dataclass
from pathlib import Path

from marquee.client.channel import open_sync_channel

from trainer.fits import silent
from trainer.publishing import publish
from trainer.readers.read_options import ReadOptions
from trainer.snapshot import Snapshot, divide_again, take_snapshot
from trainer.synthesis import SynthesisPlan, write_synthetic
from trainer.training import Request, train
from two_tower.checkpoint import read_manifest
from two_tower.registry import STABLE, Registry

PLAN = SynthesisPlan(num_users=60, num_movies=120, num_ratings=2400, seed=7)


@dataclass(frozen=True)
class Trained:
    """A registry with one model, whose answers follow a user's history, and its data.

    Attributes:
        registry: Its `stable` names the model.
        snapshot: What it was trained on.
        folder: Where the snapshot's files lie.
    """

    registry: Registry
    snapshot: Snapshot
    folder: Path

    def publish_to(self, address: str) -> None:
        """Sends the features of the rows that the model learnt from."""
        version = self.registry.labels()[STABLE]
        rows = divide_again(self.snapshot, read_manifest(self.registry.path_of(version))).train
        with open_sync_channel(address) as channel:
            publish(channel, self.snapshot.data, rows)


def train_small(folder: Path) -> Trained:
    """Trains a model of histories on generated data, in a second."""
    data = folder / "data"
    data.mkdir()
    write_synthetic(PLAN, data)
    snapshot = take_snapshot(str(data), ReadOptions())
    registry = Registry(folder / "registry")
    request = Request(model="two-tower-history", options=["epochs=2"], calibrated=False, reported=False)
    train(snapshot, registry, request, silent)
    return Trained(registry, snapshot, data)
