"""Makes the tables of the baselines: numbers that are counted, not trained. Knows rows and ratings; knows no vector."""

from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from trainer.dataset import Dataset, Interactions
from trainer.errors import DataError
from trainer.fits.trained_rows import TrainedRows, with_unknown_row
from two_tower.models.baselines import Baseline, BaselineConfig

BaselineT = TypeVar("BaselineT", bound=Baseline)


def rated_of(name: str, data: Dataset, trained: TrainedRows) -> Interactions:
    """Returns the rows with a rating.

    Raises:
        DataError: There are none.
    """
    rated = trained.interactions.take(~np.isnan(trained.interactions.ratings))
    if data.scale is None or not len(rated):
        raise DataError(f"{name} learns from ratings, and {data.name} has none to train on")
    return rated


def make_baseline(
    kind: type[BaselineT],
    data: Dataset,
    trained: TrainedRows,
    *,
    global_mean: float,
    user_damping: float = 1.0,
    users: NDArray[np.floating] | None = None,
    movies: NDArray[np.floating] | None = None,
    ranking: NDArray[np.floating] | None = None,
) -> BaselineT:
    """Returns a baseline; a table that is not given is zero throughout, and so is row 0 of each.

    Args:
        kind: Which.
        data: Gives the scale.
        trained: Gives the rows.
        global_mean: In stars.
        user_damping: Of biases taken from histories.
        users: Bias of each user. [U]
        movies: Rating bias of each movie. [I]
        ranking: What each movie is ranked by. [I]
    """
    config = BaselineConfig(
        scale=data.scale,
        ages=trained.encoder.ages,
        years=trained.encoder.years,
        global_mean=global_mean,
        user_damping=user_damping,
    )

    def table(values: NDArray[np.floating] | None, length: int) -> NDArray[np.floating]:
        return np.zeros(length) if values is None else values

    tensors = {
        "users.biases": with_unknown_row(table(users, trained.num_users)),
        "movies.rating_biases": with_unknown_row(table(movies, trained.num_movies)),
        "movies.ranking_biases": with_unknown_row(table(ranking, trained.num_movies)),
    }
    return kind(config, trained.encoder, tensors)
