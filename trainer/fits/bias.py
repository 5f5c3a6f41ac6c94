"""Fits the baseline of damped biases: mean, how far a user lies above it, how far a movie does; ranks by the last."""

from dataclasses import dataclass, field

from trainer.dataset import Dataset
from trainer.fits import Progress
from trainer.fits.baseline_tables import make_baseline, rated_of
from trainer.fits.biases import fit_damped_biases
from trainer.fits.trained_rows import TrainedRows
from two_tower.models.baselines import Bias


@dataclass(frozen=True, slots=True)
class Options:
    """How to fit; the defaults are the recipe's.

    Attributes:
        user_damping: Ratings as expected that each user is given beside his own.
        movie_damping: The same for movies.
        sweeps: Alternations of users and movies.
    """

    user_damping: float = field(default=5.0, metadata={"low": 0.001, "high": 1e6})
    movie_damping: float = field(default=3.0, metadata={"low": 0.001, "high": 1e6})
    sweeps: int = field(default=10, metadata={"low": 1, "high": 10_000})


def fit(data: Dataset, options: Options, *, seed: int, progress: Progress) -> Bias:
    """Alternates damped means.

    Raises:
        DataError: The data has no ratings, or no rows.
    """
    trained = TrainedRows.of(data)
    biases = fit_damped_biases(
        rated_of(Bias.name, data, trained),
        trained.num_users,
        trained.num_movies,
        user_damping=options.user_damping,
        movie_damping=options.movie_damping,
        sweeps=options.sweeps,
    )
    progress(1, 1, "biases fitted")
    return make_baseline(
        Bias,
        data,
        trained,
        global_mean=biases.global_mean,
        user_damping=options.user_damping,
        users=biases.user_biases,
        movies=biases.movie_biases,
        ranking=biases.movie_biases,
    )
