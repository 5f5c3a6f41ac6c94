"""What the fits of dot-bias and dot-bias-genre have in common: options, rows, and tables turned into a model's tensors.

Knows the notebook's constants; knows no gradient.
"""

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trainer.dataset import Dataset
from trainer.errors import DataError
from trainer.fits.pair_training import Plan, split_validation
from trainer.fits.squashed_factors import Rated, Steps
from trainer.fits.trained_rows import TrainedRows


@dataclass(frozen=True, slots=True)
class FactorOptions:
    """How to fit; the defaults are the notebook's.

    Attributes:
        factors: Coordinates of a vector.
        learning_rate: Of Adam.
        weight_decay: Coupled L2; the notebook tried .1.
        batch_size: Rows a step.
        epochs: Passes over the training rows, at most.
        patience: Epochs without a lower validation error after which training stops; 0 trains them all. Above 0 the
            best epoch's tables are kept and `validation_share` of the rows is not learnt from.
        validation_share: See `patience`.
        dropout: Share of coordinates left out of each dot product in training.
        rounded: Serves the nearest rating that a user could give.
        margin: Where the sigmoid's ends lie: steps of the scale below its lowest and above its highest rating. The
            notebook's 0 and 5.5 about half stars are 1.
        adam: "every-row" moves a row at every step, as the notebook's; "used-rows" only those of the batch.
    """

    factors: int = field(default=50, metadata={"low": 2, "high": 1024})
    learning_rate: float = field(default=5e-3, metadata={"low": 1e-8, "high": 10.0})
    weight_decay: float = field(default=0.0, metadata={"low": 0.0, "high": 10.0})
    batch_size: int = field(default=64, metadata={"low": 1, "high": 1 << 20})
    epochs: int = field(default=10, metadata={"low": 1, "high": 10_000})
    patience: int = field(default=0, metadata={"low": 0, "high": 10_000})
    validation_share: float = field(default=0.1, metadata={"low": 0.001, "high": 0.5})
    dropout: float = field(default=0.0, metadata={"low": 0.0, "high": 0.95})
    rounded: bool = False
    margin: float = field(default=0.5, metadata={"low": 0.0, "high": 100.0})
    adam: Literal["every-row", "used-rows"] = "every-row"


def rated_rows(name: str, data: Dataset) -> tuple[TrainedRows, Rated]:
    """Returns the rows that have a rating, in table rows of a model that puts the unknown into row 0.

    Raises:
        DataError: There are none.
    """
    rated = ~np.isnan(data.interactions.ratings)
    if data.scale is None or not rated.any():
        raise DataError(f"{name} learns from ratings, and {data.name} has none to train on")
    trained = TrainedRows.of(data)
    rows = trained.interactions.take(rated)
    return trained, Rated(rows.user_rows.astype(np.int64) + 1, rows.movie_rows.astype(np.int64) + 1, rows.ratings)


def squashed_range(data: Dataset, margin: float) -> tuple[float, float]:
    """Returns the stars that the sigmoid's ends stand for, some steps beyond the scale."""
    assert data.scale is not None
    return data.scale.low - data.scale.step * margin, data.scale.high + data.scale.step * margin


def divided(rated: Rated, options: FactorOptions, rng: np.random.Generator) -> tuple[Rated, Rated]:
    """Returns the rows to learn from and those to stop by."""
    share = options.validation_share if options.patience else 0.0
    learn, stop_by = split_validation(len(rated), share, rng)
    return rated.take(learn), rated.take(stop_by)


def plan_of(options: FactorOptions, num_rows: int) -> Plan:
    """Returns how long to train."""
    keep: Literal["validation", "last"] = "validation" if options.patience else "last"
    return Plan(num_rows, options.batch_size, options.epochs, "mse", keep, options.patience)


def steps_of(options: FactorOptions, floor: float, ceiling: float) -> Steps:
    """Returns how a step is taken."""
    return Steps(
        factors=options.factors,
        floor=floor,
        ceiling=ceiling,
        learning_rate=options.learning_rate,
        weight_decay=options.weight_decay,
        dropout=options.dropout,
        late_steps=options.adam == "every-row",
    )


def with_mean_row(table: NDArray[np.float32], trained: NDArray[np.int64]) -> NDArray[np.float32]:
    """Returns the table with the mean of its trained rows in row 0 and in every row without a rating."""
    made = table.copy()
    used = np.unique(trained)
    mean = table[used].mean(axis=0, dtype=np.float64)
    made[:] = mean
    made[used] = table[used]
    return made


def vectors_and_biases(name: str, table: NDArray[np.float32]) -> dict[str, Tensor]:
    """Returns a table whose last column is the bias as the two tensors that models keep."""
    return {
        f"{name}.vectors": torch.from_numpy(np.ascontiguousarray(table[:, :-1])),
        f"{name}.biases": torch.from_numpy(np.ascontiguousarray(table[:, -1])),
    }
