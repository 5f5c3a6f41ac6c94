"""A registry, a store and a toy data set whose newest part has not happened yet. Knows how they are put together."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

import grpc
import numpy as np
from google.protobuf.timestamp_pb2 import Timestamp
from marquee.v1 import feature_service_pb2 as pb2
from marquee.v1 import feature_service_pb2_grpc

from tests.toy_dataset import toy_dataset
from trainer.dataset import Dataset, Interactions
from trainer.publishing import publish
from trainer.rebuild.journal import Result
from trainer.rebuild.plan import Plan
from trainer.rebuild.publication import keep_published
from trainer.rebuild.rebuilding import Rebuild, Told, ignore
from trainer.rebuild.store_reading import StoreReader
from trainer.snapshot import Snapshot, hash_of_data
from trainer.store_snapshots.data import read_snapshot_data
from trainer.store_snapshots.folder import SnapshotFolder
from trainer.training import Request, train
from two_tower.registry import STABLE, Registry

TIMEOUT_S = 60.0
PLAN = Plan(model="bias", reported=False)


def utc_now() -> datetime:
    """Returns what the wall clock says."""
    return datetime.now(UTC)


def timestamp(time_ms: int) -> Timestamp:
    """Returns epoch milliseconds as a Timestamp."""
    return Timestamp(seconds=time_ms // 1000, nanos=time_ms % 1000 * 1_000_000)


@dataclass
class Looped:
    """What a test of the loop acts on.

    Attributes:
        registry: Begins with a checkpoint of the oldest rows under the label, and a snapshot of these.
        channel: To the store, which holds them.
        data: All rows, the newest of which nobody has seen.
    """

    registry: Registry
    channel: grpc.Channel
    data: Dataset = field(default_factory=lambda: toy_dataset(num_users=150))

    def __post_init__(self) -> None:
        """Divides the rows."""
        self.features = feature_service_pb2_grpc.FeatureServiceStub(self.channel)
        by_time = np.argsort(self.data.interactions.event_times_ms, kind="stable")
        self.old, self.new = (self.data.interactions.take(part) for part in np.split(by_time, [1800]))

    @property
    def snapshots(self) -> SnapshotFolder:
        """The snapshots of the registry."""
        return SnapshotFolder(self.registry)

    def begin(self, model: str = "bias") -> str:
        """Trains on the old rows, publishes them, and returns the version that has the label."""
        known = replace(self.data, interactions=self.old)
        snapshot = Snapshot(known, Path("toy"), hash_of_data(known), 0)
        request = Request(model, "none", calibrated=False, reported=False)
        version = train(snapshot, self.registry, request).manifest.version
        publish(self.channel, known, self.old)
        keep_published(self.registry, StoreReader(self.channel), known, self.old)
        return version

    def part(self, first: int, end: int) -> Interactions:
        """Returns some of the rows that nobody has seen, oldest first."""
        return self.new.take(np.arange(first, end))

    def feed(self, rows: Interactions) -> None:
        """Writes rows as events."""
        events = [
            pb2.Event(
                event_id=f"{user}/{movie}",
                user_id=self.data.user_ids[user],
                movie_id=self.data.movies.movie_ids[movie],
                rating=stars,
                event_time=timestamp(time_ms),
            )
            for user, movie, stars, time_ms in zip(
                rows.user_rows.tolist(),
                rows.movie_rows.tolist(),
                rows.ratings.tolist(),
                rows.event_times_ms.tolist(),
                strict=True,
            )
        ]
        for start in range(0, len(events), 1000):
            self.features.WriteEvents(pb2.WriteEventsRequest(events=events[start : start + 1000]), timeout=TIMEOUT_S)

    def watch(self, user_id: str, movie_id: str, time_ms: int) -> None:
        """Writes one event without a rating."""
        event = pb2.Event(event_id=str(time_ms), user_id=user_id, movie_id=movie_id, event_time=timestamp(time_ms))
        self.features.WriteEvents(pb2.WriteEventsRequest(events=[event]), timeout=TIMEOUT_S)

    def delete(self, user_id: str) -> None:
        """Has a user forgotten."""
        self.features.DeleteUser(pb2.DeleteUserRequest(user_id=user_id), timeout=TIMEOUT_S)

    def rebuild(self, plan: Plan = PLAN, told: Told = ignore, now: Callable[[], datetime] = utc_now) -> Result:
        """Rebuilds once."""
        return Rebuild(self.registry, StoreReader(self.channel), plan, told=told, now=now).run()

    def newest_data(self) -> Dataset:
        """Returns what the newest snapshot holds."""
        newest = self.snapshots.newest()
        assert newest is not None
        return read_snapshot_data(self.snapshots.path_of(newest))[1]

    def label(self) -> str | None:
        """Returns what has the label."""
        return self.registry.label(STABLE)


def rows_of(data: Dataset, rows: Interactions) -> set[tuple[str, str, float, int]]:
    """Returns rows by external ids."""
    return {
        (data.user_ids[user], data.movies.movie_ids[movie], stars, time_ms)
        for user, movie, stars, time_ms in zip(
            rows.user_rows.tolist(),
            rows.movie_rows.tolist(),
            rows.ratings.tolist(),
            rows.event_times_ms.tolist(),
            strict=True,
        )
    }
