"""Baselines that are a number a movie and a number a user: what any other model has to beat.

rating = mean + user bias + movie bias, and one number a movie to rank by. The movies' vectors are their genres and
year, by which two movies are alike and which no user looks at: so similar movies are found, and nothing else changes.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from two_tower.errors import MismatchedCheckpointError
from two_tower.features import FeatureEncoder
from two_tower.models.table_model import TableConfig, TableModel
from two_tower.movie_columns import MovieColumns
from two_tower.serving import FactoredModel, MovieEmbeddings, UserEmbeddings
from two_tower.user_columns import UserColumns


@dataclass(frozen=True, slots=True, kw_only=True)
class BaselineConfig(TableConfig):
    """What a baseline is, beside its tables.

    Attributes:
        global_mean: What it says of a user and a movie of whom nothing is known, in stars.
        user_damping: Ratings of 0 that a user is given beside his own where his bias is taken from his history.
    """

    global_mean: float
    user_damping: float

    def __post_init__(self) -> None:
        if not self.user_damping > 0:
            raise MismatchedCheckpointError(["config.user_damping is above 0"])


class Baseline(TableModel[MovieEmbeddings, UserEmbeddings, BaselineConfig], FactoredModel):
    """The tables `movies.rating_biases` [I], `movies.ranking_biases` [I] and `users.biases` [U], row 0 unknown."""

    config_class: ClassVar[type[TableConfig]] = BaselineConfig
    uses_history: ClassVar[bool] = False
    uses_profile: ClassVar[bool] = False
    uses_content: ClassVar[bool] = False

    @classmethod
    def tensor_shapes(cls, config: BaselineConfig, encoder: FeatureEncoder) -> dict[str, tuple[int, ...]]:
        """Returns the shapes of the three tables."""
        movies = (len(encoder.movies),)
        return {
            "movies.rating_biases": movies,
            "movies.ranking_biases": movies,
            "users.biases": (len(encoder.users),),
        }

    @torch.no_grad()
    def embed_movies(self, movies: MovieColumns) -> MovieEmbeddings:
        """Looks the two numbers up."""
        index, known, rows = self._rows_of(movies)
        return MovieEmbeddings(
            torch.ones(len(movies), 1, device=self.device),
            self._tensors["movies.rating_biases"][index] + self._config.global_mean,
            self._content_of(movies),
            self._tensors["movies.ranking_biases"][index],
            known,
            rows,
        )

    @torch.no_grad()
    def embed_users(self, users: UserColumns, movies: MovieEmbeddings) -> UserEmbeddings:
        """Looks one number up."""
        return self._users_with(self._trained_biases(users), movies)

    def _trained_biases(self, users: UserColumns) -> Tensor:
        return self._tensors["users.biases"][self._to_device(self._encoder.users.rows_of(users.user_ids))]  # [B]

    @staticmethod
    def _users_with(biases: Tensor, movies: MovieEmbeddings) -> UserEmbeddings:
        return UserEmbeddings(biases[:, None], biases.new_zeros(len(biases), movies.ranking_vectors.shape[1]))


class Mean(Baseline):
    """The mean rating, whoever asks and whatever for; ranks nothing above anything."""

    name: ClassVar[str] = "mean"


class Majority(Baseline):
    """The rating given most often; ranks nothing above anything."""

    name: ClassVar[str] = "majority"


class Popular(Baseline):
    """Ranks by how many watched a movie; rates by its damped mean."""

    name: ClassVar[str] = "popular"


class Bias(Baseline):
    """Damped biases; a stranger's is taken from his history, and so is that of a user whose history is all there."""

    name: ClassVar[str] = "bias"
    uses_history: ClassVar[bool] = True

    @torch.no_grad()
    def embed_users(self, users: UserColumns, movies: MovieEmbeddings) -> UserEmbeddings:
        """Takes biases from histories where they are better evidence than what was trained on a part of them."""
        biases = biases_of_histories(users, movies.rating_biases.cpu().numpy(), self._config.user_damping)
        use_trained = self.knows_users(list(users.user_ids)) & ~users.histories.complete
        found = torch.where(self._to_device(use_trained), self._trained_biases(users), self._to_device(biases))
        return self._users_with(found, movies)


def biases_of_histories(users: UserColumns, expected: NDArray[np.float32], damping: float) -> NDArray[np.float32]:
    """Returns by how much each user's ratings lie above expectation, damped (Koren 2010, section 2.1). float32 [B].

    Args:
        users: The users.
        expected: The rating that an average user would give, by catalogue number. [M]
        damping: Ratings as expected that each user is given beside his own.
    """
    histories = users.histories
    owners = np.repeat(np.arange(len(users)), np.diff(histories.offsets))  # [E]
    rated = ~np.isnan(histories.ratings)
    surprises = histories.ratings[rated] - expected[histories.movie_numbers[rated]]
    sums = np.bincount(owners[rated], surprises, minlength=len(users))
    return (sums / (np.bincount(owners[rated], minlength=len(users)) + damping)).astype(np.float32)
