"""Fits item-knn: biases, and the neighbours of each movie by adjusted cosine (ratings) and by cosine (watching).

The newest 200 events of a user are all that is ever asked of his past; of users with more, the bias is trained.
"""

from dataclasses import dataclass, field

import numpy as np
import scipy.sparse
import torch
from torch import Tensor

from trainer.dataset import Dataset
from trainer.errors import DataError
from trainer.fits import Progress
from trainer.fits.biases import DampedBiases, fit_damped_biases
from trainer.fits.neighbours import Neighbours, find_neighbours, similarity_vectors
from trainer.fits.trained_rows import TrainedRows, with_unknown_row
from two_tower.models.item_knn import ItemKnn, ItemKnnConfig


@dataclass(frozen=True, slots=True)
class Options:
    """How to fit; the defaults were chosen on validation rows of ML-100K (docs/experiments.md).

    Attributes:
        neighbours: Kept of each movie, for ratings and for ranking.
        rating_shrinkage: Common users at which half of an adjusted cosine counts.
        ranking_shrinkage: The same for the cosine that ranks.
        residual_damping: Similarity that speaks for no residual, beside that of the rated neighbours.
        decay_events: Where the data has times, an event counts e^(-a / decay_events) + decay_floor in a ranking, a
            events back from the newest; 0: all the same.
        decay_floor: See `decay_events`.
        user_damping: Of the biases.
        movie_damping: Of the biases.
        vector_size: Coordinates of the vectors that similar movies are found by.
    """

    neighbours: int = field(default=200, metadata={"low": 1, "high": 4096})
    rating_shrinkage: float = field(default=30.0, metadata={"low": 0.0, "high": 1e6})
    ranking_shrinkage: float = field(default=0.0, metadata={"low": 0.0, "high": 1e6})
    residual_damping: float = field(default=0.2, metadata={"low": 1e-6, "high": 1e6})
    decay_events: float = field(default=5.0, metadata={"low": 0.0, "high": 1e6})
    decay_floor: float = field(default=0.03, metadata={"low": 0.0, "high": 1e6})
    user_damping: float = field(default=5.0, metadata={"low": 0.001, "high": 1e6})
    movie_damping: float = field(default=3.0, metadata={"low": 0.001, "high": 1e6})
    vector_size: int = field(default=64, metadata={"low": 1, "high": 1024})


def fit(data: Dataset, options: Options, *, seed: int, progress: Progress) -> ItemKnn:
    """Finds neighbours; data without ratings is ranked only.

    Raises:
        DataError: The data has no rows.
    """
    if not len(data.interactions):
        raise DataError(f"{data.name} has no interactions to train on")
    trained = TrainedRows.of(data)
    rows = trained.interactions
    shape = (trained.num_users, trained.num_movies)
    watched = scipy.sparse.csr_array((np.ones(len(rows)), (rows.user_rows, rows.movie_rows)), shape)
    by_watching = find_neighbours(watched, options.neighbours, options.ranking_shrinkage)
    progress(1, 3, "neighbours by watching found")

    rated = rows.take(~np.isnan(rows.ratings))
    if data.scale is not None and len(rated):
        biases = fit_damped_biases(
            rated, *shape, user_damping=options.user_damping, movie_damping=options.movie_damping
        )
        residuals = scipy.sparse.csr_array((biases.residuals(rated), (rated.user_rows, rated.movie_rows)), shape)
        by_rating = find_neighbours(residuals, options.neighbours, options.rating_shrinkage)
    else:
        biases = DampedBiases(0.0, np.zeros(shape[0]), np.zeros(shape[1]))
        by_rating = by_watching
    progress(2, 3, "neighbours by rating found")

    config = ItemKnnConfig(
        scale=data.scale,
        ages=trained.encoder.ages,
        years=trained.encoder.years,
        global_mean=biases.global_mean,
        user_damping=options.user_damping,
        neighbours=options.neighbours,
        vector_size=options.vector_size,
        residual_damping=options.residual_damping,
        decay_events=options.decay_events if data.has_times else 0.0,
        decay_floor=options.decay_floor,
    )
    vectors = similarity_vectors(watched, options.vector_size)
    tensors = {
        "movies.vectors": _with_mean_row(vectors),
        "movies.biases": with_unknown_row(biases.movie_biases),
        "users.biases": with_unknown_row(biases.user_biases),
        **_tables("rating", by_rating),
        **_tables("ranking", by_watching),
    }
    progress(3, 3, "vectors made")
    return ItemKnn(config, trained.encoder, tensors)


def _tables(head: str, neighbours: Neighbours) -> dict[str, Tensor]:
    # Row r of the data is row r + 1 of the model, and its padding, -1, is row 0.
    return {
        f"movies.{head}_neighbours": with_unknown_row(neighbours.rows + 1),
        f"movies.{head}_similarities": with_unknown_row(neighbours.similarities),
    }


def _with_mean_row(vectors: np.ndarray[tuple[int, ...], np.dtype[np.float32]]) -> Tensor:
    return torch.from_numpy(np.concatenate([vectors.mean(axis=0, keepdims=True), vectors]))
