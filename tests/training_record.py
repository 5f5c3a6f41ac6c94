"""Makes what a trainer would say of a model that nobody measured. Knows manifests; knows no model and no data."""

from two_tower.manifest import Metrics, TrainedRows, TrainingRecord
from two_tower.serving import RatingScale

SNAPSHOT_TIME_MS = 1_600_000_000_000


def unmeasured(
    scale: RatingScale | None, data_until_ms: int, *, has_times: bool = True, history_window: int = 200
) -> TrainingRecord:
    """Returns the record of a toy model.

    Args:
        scale: Of the model.
        data_until_ms: Newest event that it was trained on; 0 for data without times.
        has_times: Whether its data has times.
        history_window: Events of a user that it was trained to see.
    """
    return TrainingRecord(
        data_name="toy",
        data_sha256="d" * 64,
        has_times=has_times,
        data_until_ms=data_until_ms,
        snapshot_time_ms=SNAPSHOT_TIME_MS,
        trained_rows=TrainedRows(holdout="none", seed=0, count=7, sha256="r" * 64),
        rating_scale=scale,
        metrics=Metrics(
            rmse=None, mae=None, ndcg_at_10=None, recall_at_10=None, protocol="none", num_ratings=0, num_users=0
        ),
        options={},
        seed=0,
        history_window=history_window,
        libraries={},
        commit=None,
        created_at_ms=SNAPSHOT_TIME_MS,
    )
