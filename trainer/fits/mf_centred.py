"""Fits mf-centred: global mean, user and movie means each on its own, and a dot product on what they leave over.

As a published notebook does it: vectors from N(0, 1), Adam, batches in the order of the file. Its tables were as long
as the largest id; here they are as long as there are users and movies.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trainer.dataset import Dataset
from trainer.fits import Progress
from trainer.fits.factor_options import rated_rows, with_mean_row
from trainer.fits.late_adam import LateAdam
from trainer.fits.pair_training import Plan, run
from trainer.fits.squashed_factors import Rated
from two_tower.models.factor_tables import FactorConfig
from two_tower.models.mf_centred import MfCentred


@dataclass(frozen=True, slots=True)
class Options:
    """How to fit; the defaults are the notebook's.

    Attributes:
        factors: Coordinates of a vector; 2 can be drawn as they are.
        learning_rate: Of Adam.
        batch_size: Rows a step.
        epochs: Passes over the training rows.
        shuffled: Draws a new order each epoch; the notebook went through the file, where a batch is of a user or two.
        adam: "every-row" moves a row at every step, as the notebook's; "used-rows" only those of the batch.
    """

    factors: int = field(default=2, metadata={"low": 1, "high": 1024})
    learning_rate: float = field(default=3e-4, metadata={"low": 1e-8, "high": 10.0})
    batch_size: int = field(default=300, metadata={"low": 1, "high": 1 << 20})
    epochs: int = field(default=100, metadata={"low": 1, "high": 100_000})
    shuffled: bool = False
    adam: Literal["every-row", "used-rows"] = "every-row"


def fit(data: Dataset, options: Options, *, seed: int, progress: Progress) -> MfCentred:
    """Fits the tables.

    Raises:
        DataError: The data has no ratings, or no rows.
        DivergedError: An error is no longer a number.
    """
    trained, rated = rated_rows(MfCentred.name, data)
    rng = np.random.default_rng(seed)
    global_mean = float(rated.ratings.mean(dtype=np.float64))
    centred = rated.ratings - global_mean
    user_means = _means(rated.user_rows, centred, trained.num_users + 1)
    movie_means = _means(rated.movie_rows, centred, trained.num_movies + 1)
    residuals = (centred - user_means[rated.user_rows] - movie_means[rated.movie_rows]).astype(np.float32)
    factors = _Factors(
        Rated(rated.user_rows, rated.movie_rows, residuals), trained.num_users + 1, trained.num_movies + 1, options, rng
    )
    plan = Plan(len(rated), options.batch_size, options.epochs, "mse", shuffled=options.shuffled)
    run(factors, plan, rng, progress)
    config = FactorConfig(
        scale=data.scale,
        ages=trained.encoder.ages,
        years=trained.encoder.years,
        factors=options.factors,
        global_mean=global_mean,
        floor=None,
        ceiling=None,
        rounded=False,
    )
    tables = {
        "users.vectors": with_mean_row(factors.users, rated.user_rows),
        "users.biases": with_mean_row(user_means, rated.user_rows),
        "movies.vectors": with_mean_row(factors.movies, rated.movie_rows),
        "movies.biases": with_mean_row(movie_means, rated.movie_rows),
    }
    return MfCentred(config, trained.encoder, {name: torch.from_numpy(table) for name, table in tables.items()})


class _Factors:
    """The trainee."""

    def __init__(
        self, residuals: Rated, num_users: int, num_movies: int, options: Options, rng: np.random.Generator
    ) -> None:
        self._rows = residuals
        self.users = rng.standard_normal((num_users, options.factors), np.float32)  # [U, D]
        self.movies = rng.standard_normal((num_movies, options.factors), np.float32)  # [I, D]
        late_steps = options.adam == "every-row"
        self._user_adam = LateAdam(self.users, options.learning_rate, late_steps=late_steps)
        self._movie_adam = LateAdam(self.movies, options.learning_rate, late_steps=late_steps)

    def weights(self) -> Mapping[str, Tensor]:
        return {"users": torch.from_numpy(self.users), "movies": torch.from_numpy(self.movies)}

    def step(self, positions: Tensor) -> Tensor:
        batch = self._rows.take(positions.numpy())
        users, movies = self._user_adam.rows(batch.user_rows), self._movie_adam.rows(batch.movie_rows)  # [B, D]
        errors = np.einsum("bd,bd->b", users, movies) - batch.ratings  # [B]
        slopes = (np.float32(2 / len(batch)) * errors)[:, None]
        self._user_adam.step(batch.user_rows, slopes * movies)
        self._movie_adam.step(batch.movie_rows, slopes * users)
        return torch.tensor(float(np.square(errors).sum()))

    def validation_loss(self) -> float | None:
        self._user_adam.finish()
        self._movie_adam.finish()
        return None


def _means(rows: NDArray[np.int64], values: NDArray[np.float32], num_rows: int) -> NDArray[np.float32]:
    """Returns the mean value of each row, 0 of a row without one. float32 [num_rows]."""
    sums = np.bincount(rows, values, num_rows)
    return (sums / np.maximum(np.bincount(rows, minlength=num_rows), 1)).astype(np.float32)
