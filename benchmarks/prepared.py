"""Trains a model on generated data, once, and serves it: what every benchmark of serving is about.

Knows how it is made and where it is kept; knows no question and no figure. A fit is short, as its quality is nobody's
concern here; what an answer costs hangs on shapes alone.
"""

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from marquee.client.channel import open_sync_channel

from deploy.local.stack import LocalStack
from trainer.dataset import Dataset, Interactions
from trainer.fits import silent
from trainer.publishing import publish
from trainer.readers.read_options import ReadOptions
from trainer.snapshot import divide_again, take_snapshot
from trainer.synthesis import SynthesisPlan, write_synthetic
from trainer.training import Request, train
from two_tower.checkpoint import read_manifest
from two_tower.errors import TwoTowerError
from two_tower.registry import STABLE, Registry

FOLDER = Path(".run/bench")
FULL = SynthesisPlan(num_users=100_000, num_movies=4000, num_ratings=2_000_000, seed=3)
SMOKE = SynthesisPlan(num_users=1000, num_movies=500, num_ratings=30_000, seed=3)
MODELS = ("two-tower-history", "marquee")
_OPTIONS = {
    "two-tower-history": ("epochs=1",),
    # The sizes of what serves are the default's; the movie tower, which learns from a column of all users, is left out.
    "marquee": (
        *("machine_share=1", "machine_iterations=10", "machine_size=128", "rating_size=128"),
        *("ranking_epochs=1", "ranking_cuts=1"),
    ),
}


@dataclass(frozen=True, slots=True)
class Prepared:
    """A trained model and what it was trained on.

    Attributes:
        folder: Where all of it is kept.
        model: Its name.
        data: Users, movies, interactions.
        rows: The interactions that it was trained on and that are published.
    """

    folder: Path
    model: str
    data: Dataset
    rows: Interactions

    @property
    def registry(self) -> Registry:
        """Holds the checkpoint, labelled stable."""
        return Registry(self.folder / "registry")

    @property
    def checkpoint(self) -> Path:
        """The folder of the checkpoint."""
        version = self.registry.label(STABLE)
        assert version is not None
        return self.registry.path_of(version)

    @property
    def users(self) -> Sequence[str]:
        """Ids of those who watched something."""
        return [self.data.user_ids[row] for row in np.unique(self.rows.user_rows)]

    @contextmanager
    def stack(self) -> Iterator[tuple[LocalStack, int]]:
        """Runs a feature_service, of which Redis is a child, with what the model was trained on; yields its pid too."""
        shutil.rmtree(self.folder / "running", ignore_errors=True)
        stack = LocalStack.on_free_ports((self.folder / "running").resolve(), self.registry.path.resolve())
        with stack.feature_service() as service:
            with open_sync_channel(stack.feature_address) as channel:
                publish(channel, self.data, self.rows)
            assert service.pid is not None
            yield stack, service.pid


def prepare(model: str, plan: SynthesisPlan = FULL) -> Prepared:
    """Returns a model as it was trained before on the same data, or trains it."""
    name = f"{plan.num_users}x{plan.num_movies}x{plan.num_ratings}-{plan.seed}"
    data, folder = FOLDER / name / "data", FOLDER / name / model
    if not (data / "complete").exists():
        shutil.rmtree(data, ignore_errors=True)
        data.mkdir(parents=True)
        write_synthetic(plan, data)
        (data / "complete").touch()
    snapshot = take_snapshot(str(data), ReadOptions())
    registry = Registry(folder / "registry")
    if not _is_servable(registry):
        shutil.rmtree(folder, ignore_errors=True)
        request = Request(model=model, label=STABLE, options=_OPTIONS[model], calibrated=False, reported=False)
        train(snapshot, registry, request, silent)
    manifest = read_manifest(registry.path_of(registry.labels()[STABLE]))
    return Prepared(folder, model, snapshot.data, divide_again(snapshot, manifest).train)


def _is_servable(registry: Registry) -> bool:
    try:
        version = registry.label(STABLE)
        return version is not None and bool(read_manifest(registry.path_of(version)))
    except (TwoTowerError, OSError):
        return False
