"""A small model and its record, made by hand."""

import numpy as np
import pytest
import torch

from two_tower.features import FeatureEncoder
from two_tower.manifest import Metrics, TrainedRows, TrainingRecord
from two_tower.models.two_tower_history import Config, TwoTowerHistory, make_towers
from two_tower.movie_columns import MovieColumns
from two_tower.serving import RatingScale
from two_tower.user_columns import Profiles

MOVIES = MovieColumns(
    ["m0", "m1", "m2", "m3"],
    ["Heat", "Alien", "Big", "Up"],
    np.array([1995, 1979, 1988, np.nan], np.float32),
    [("Crime", "Drama"), ("Horror",), ("Comedy",), ()],
)
PROFILES = Profiles(["M", "F", None], np.array([20, 60, np.nan], np.float32), ["artist", "doctor", None])


@pytest.fixture
def movies() -> MovieColumns:
    """Four movies, of which the last lacks year and genres."""
    return MOVIES


@pytest.fixture
def profiles() -> Profiles:
    """Three profiles, of which the last is empty."""
    return PROFILES


@pytest.fixture
def model() -> TwoTowerHistory:
    """A two-tower-history that knows the users u0, u1 and the first three movies; its weights are random."""
    encoder = FeatureEncoder.of(["u0", "u1"], ["m0", "m1", "m2"], PROFILES, MOVIES)
    config = Config(
        activation="tanh",
        hidden_widths=(8, 4),
        history_length=3,
        history_ordered=True,
        normalised=False,
        target="unit",
        ages=encoder.ages,
        years=encoder.years,
        scale=RatingScale(1, 5, 1),
    )
    towers = make_towers(config, encoder)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in towers.parameters():
            parameter.normal_(generator=generator)
    return TwoTowerHistory(config, encoder, towers)


@pytest.fixture
def record() -> TrainingRecord:
    """What a trainer would say about the model."""
    return TrainingRecord(
        data_name="toy",
        data_sha256="d" * 64,
        has_times=True,
        data_until_ms=1_500_000_000_000,
        snapshot_time_ms=1_600_000_000_000,
        trained_rows=TrainedRows(holdout="random:0.1", seed=3, count=7, sha256="r" * 64),
        rating_scale=RatingScale(1, 5, 1),
        metrics=Metrics(
            rmse=0.9, mae=0.7, ndcg_at_10=0.1, recall_at_10=None, protocol="random:0.1", num_ratings=2, num_users=2
        ),
        options={"epochs": 1},
        seed=3,
        history_window=200,
        libraries={"torch": "2"},
        commit=None,
        created_at_ms=1_700_000_000_000,
    )
