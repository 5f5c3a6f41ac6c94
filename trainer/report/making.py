"""Gathers what is worth seeing of a trained model. Knows the order of the steps; knows no model by name."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

import numpy as np

from trainer.dataset import Dataset, Interactions
from trainer.evaluation import Evaluation
from trainer.report.findings import Findings
from trainer.report.judged import (
    KNOWN_EDGES,
    POPULARITY_EDGES,
    bands_of,
    deviations_of,
    intervals_of,
    reliability_of,
    strangers_of,
)
from trainer.report.movies import MovieSide
from two_tower.manifest import TrainingRecord
from two_tower.serving import Model


def find(
    model: Model,
    version: str,
    record: TrainingRecord,
    data: Dataset,
    train: Interactions,
    evaluation: Evaluation,
    curves: Mapping[str, Sequence[tuple[float, float]]] | None = None,
) -> Findings:
    """Asks a model everything that its report shows.

    Args:
        model: The model.
        version: Of its checkpoint.
        record: What the checkpoint says of its training.
        data: Users and movies.
        train: The training rows.
        evaluation: What the model said of the held-out rows.
        curves: Figures that its fit reported, if they were kept.
    """
    counts = np.bincount(train.movie_rows, minlength=len(data.movies))
    deviations = deviations_of(evaluation, record.rating_spread)
    movies = MovieSide(model, data, counts)
    best, worst = movies.biases()
    genres, genre_cosines = movies.genre_cosines()
    held_out = evaluation.held_out
    return Findings(
        title=f"{model.name} on {data.name}",
        facts=_facts(model, version, record),
        curves={name: tuple(points) for name, points in (curves or {}).items()},
        reliability=reliability_of(evaluation),
        intervals=intervals_of(evaluation, deviations),
        by_known=bands_of(evaluation, deviations, evaluation.num_known, KNOWN_EDGES),
        by_popularity=bands_of(evaluation, deviations, counts[held_out.movie_rows], POPULARITY_EDGES),
        strangers=strangers_of(model, data, train, held_out, record.seed) if len(held_out) else (),
        best_movies=best,
        worst_movies=worst,
        genre_biases=movies.genre_biases(),
        genres=genres,
        genre_cosines=genre_cosines,
        neighbourhoods=movies.neighbourhoods(),
        movie_map=movies.map(),
    )


def _facts(model: Model, version: str, record: TrainingRecord) -> tuple[tuple[str, str], ...]:
    metrics, rows = record.metrics, record.trained_rows
    measured = {
        "RMSE": metrics.rmse,
        "MAE": metrics.mae,
        "NDCG@10": metrics.ndcg_at_10,
        "Recall@10": metrics.recall_at_10,
    }
    until = datetime.fromtimestamp(record.data_until_ms / 1000, UTC)
    return (
        ("checkpoint", version),
        ("model", model.name),
        ("trained on", f"{rows.count:,} rows of {record.data_name}: all but {rows.holdout}, seed {rows.seed}"),
        ("data until", f"{until:%Y-%m-%d %H:%M} UTC" if record.has_times else "no times"),
        ("held out", f"{metrics.num_ratings:,} ratings of {metrics.num_users:,} users"),
        *((name, f"{value:.4f}") for name, value in measured.items() if value is not None),
        ("options", ", ".join(f"{name}={value}" for name, value in sorted(record.options.items())) or "none"),
        ("commit", record.commit or "unknown"),
    )
