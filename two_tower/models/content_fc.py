"""The classical net over content alone: who the user is and what the movie is, no id of either.

A published notebook's network: 64-32-16-1 with ReLU after every layer, the output included, over raw age, male or not,
occupation flags, year - 1900 and genre flags. `trainer.fits.content_fc` says how it is trained.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from two_tower.errors import MismatchedCheckpointError
from two_tower.features import MovieFeatures, Range, UserFeatures
from two_tower.models.encoded_pairwise import EncodedPairwise
from two_tower.movie_columns import MovieColumns
from two_tower.serving import RatingScale

FIRST_YEAR = 1900
"""The notebook's zero of the year of release."""


@dataclass(frozen=True, slots=True)
class Config:
    """What the network is, beside its weights.

    Attributes:
        hidden_widths: Width of each layer but the last, which is 1 wide.
        num_users: Rows of the user vocabulary, which the network does not look at.
        num_movies: Rows of the movie vocabulary, which says whether a movie was trained on.
        ages: Range of the age.
        years: Range of the year of release.
        scale: Rating scale of the data.
    """

    hidden_widths: tuple[int, ...]
    num_users: int
    num_movies: int
    ages: Range
    years: Range
    scale: RatingScale

    def __post_init__(self) -> None:
        if not self.hidden_widths or not all(0 < width <= 4096 for width in self.hidden_widths):
            raise MismatchedCheckpointError(["config.hidden_widths is a list of one or more widths from 1 to 4096"])


class ContentNetwork(nn.Module):
    """Four layers, the first in two parts. U and V = user and movie columns, H = width of the first layer."""

    def __init__(self, hidden_widths: tuple[int, ...], num_user_columns: int, num_movie_columns: int) -> None:
        super().__init__()
        self.user_layer = nn.Linear(num_user_columns, hidden_widths[0])
        self.movie_layer = nn.Linear(num_movie_columns, hidden_widths[0], bias=False)
        self.layers = nn.ModuleList(nn.Linear(n_in, n_out) for n_in, n_out in pairwise((*hidden_widths, 1)))

    def meet(self, users: Tensor, movies: Tensor) -> Tensor:
        """Returns stars of what both parts of the first layer gave. [..., H], [..., H] → [...]."""
        x = torch.relu(users + movies)  # [..., H]
        for layer in self.layers:
            x = torch.relu(layer(x))
        return x[..., 0]


class ContentFc(EncodedPairwise[Config, ContentNetwork]):
    """The network behind the pairwise form. It knows users and movies by name only to say whether they are new."""

    name: ClassVar[str] = "content-fc"
    config_class: ClassVar[type[Config]] = Config

    @classmethod
    def make_network(cls, config: Config, vocabularies: Mapping[str, list[str]]) -> ContentNetwork:
        """Returns a network over the columns that these vocabularies make."""
        genders, occupations, genres = (len(vocabularies[name]) for name in ("genders", "occupations", "genres"))
        return ContentNetwork(config.hidden_widths, 3 + max(genders - 2, 0) + occupations, 2 + genres)

    def raw_ratings(self, users: Tensor, movies: Tensor) -> Tensor:
        """Runs the layers after the first."""
        return self._network.meet(users, movies)

    @property
    def floats_per_pair(self) -> int:
        """Every layer, before and after its ReLU."""
        return 2 * (sum(self._config.hidden_widths) + 1)

    def _user_inputs(self, features: UserFeatures) -> Tensor:
        columns = user_columns(features, self._config.ages, len(self._encoder.genders), len(self._encoder.occupations))
        return torch.as_tensor(self._network.user_layer(self._to_device(columns)))  # [B, H]

    def _movie_inputs(self, features: MovieFeatures, movies: MovieColumns) -> tuple[Tensor, Tensor]:
        columns = self._to_device(movie_columns(features, self._config.years))  # [M, V]
        inputs = self._network.movie_layer(columns)  # [M, H]
        # Seen from the average year: else what 95 years do to every movie makes all of them alike.
        average = max(self._config.years.mean - FIRST_YEAR, 0) * self._network.movie_layer.weight[:, 0]  # [H]
        return inputs, inputs - average


def user_columns(features: UserFeatures, ages: Range, num_genders: int, num_occupations: int) -> NDArray[np.float32]:
    """Returns the inputs of a user: age in years and whether it is missing; genders; occupations. float32 [B, U].

    Of the genders the first of the vocabulary (F) is what no flag means, as in the notebook's "male"; flag 0 of both is
    for the unknown.
    """
    genders = _flags(features.genders, max(num_genders, 2))
    age = _raw(features.ages, ages, zero=0)
    occupations = _flags(features.occupations, num_occupations)
    return np.column_stack([age, features.age_missing, np.delete(genders, 1, axis=1), occupations]).astype(np.float32)


def movie_columns(features: MovieFeatures, years: Range) -> NDArray[np.float32]:
    """Returns the inputs of a movie: year of release since 1900 and whether it is missing; genres. float32 [M, V]."""
    year = _raw(features.years, years, zero=FIRST_YEAR)
    return np.column_stack([year, features.year_missing, features.genres > 0]).astype(np.float32)


def _raw(scaled: NDArray[np.float32], scale: Range, zero: float) -> NDArray[np.float64]:
    """Undoes `Range.scale`, for the notebook's inputs are years; of data without two different years gives zeros."""
    if scale.high <= scale.low:
        return np.zeros(len(scaled))
    return scale.low - zero + scaled.astype(np.float64) * (scale.high - scale.low)


def _flags(rows: NDArray[np.int64], num_rows: int) -> NDArray[np.bool_]:
    flags: NDArray[np.bool_] = rows[:, None] == np.arange(num_rows)
    return flags
