"""What tests ask of a running stack. Knows stubs and times; starts nothing."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from google.protobuf.timestamp_pb2 import Timestamp
from marquee.v1 import feature_service_pb2, feature_service_pb2_grpc, model_service_pb2_grpc

from trainer.dataset import Dataset
from two_tower.checkpoint import Checkpoint

MODELS = ("marquee", "two-tower-history")
TIMEOUT_S = 20.0


def at(minutes: int) -> Timestamp:
    """Returns a time that lies later than all of the data set."""
    stamp = Timestamp()
    stamp.FromDatetime(datetime(2026, 1, 1, tzinfo=UTC) + timedelta(minutes=minutes))
    return stamp


@dataclass(frozen=True)
class RunningStack:
    """Stubs to the services, and what they serve."""

    features: feature_service_pb2_grpc.FeatureServiceStub
    models: dict[str, model_service_pb2_grpc.ModelServiceStub]
    checkpoints: dict[str, Checkpoint]
    data: Dataset

    def watch(self, user_id: str, movie_id: str, minutes: int, rating: float | None = None) -> str:
        """Writes one event, which must change the user's state, and returns the user's version."""
        event = feature_service_pb2.Event(
            event_id=f"{user_id}/{movie_id}/{minutes}", user_id=user_id, movie_id=movie_id, event_time=at(minutes)
        )
        if rating is not None:
            event.rating = rating
        request = feature_service_pb2.WriteEventsRequest(events=[event])
        (result,) = self.features.WriteEvents(request, timeout=TIMEOUT_S).results
        assert result.status == feature_service_pb2.EVENT_STATUS_APPLIED
        return str(result.user_version)
