"""The smaller TensorFlow Recommenders network: two id towers, their product, two layers to stars.

A published notebook's network. Only the most active users and the most rated movies have a row of their own; row 0 is
all others. `trainer.fits.tfrs_simple` says how it is trained.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from two_tower.features import MovieFeatures, Range, UserFeatures
from two_tower.models.encoded_pairwise import EncodedPairwise
from two_tower.movie_columns import MovieColumns
from two_tower.serving import RatingScale

# All widths are the notebook's.
ID_WIDTH = 25
TOWER_WIDTH = 20
HIDDEN_WIDTH = 10


@dataclass(frozen=True, slots=True)
class Config:
    """What the network is, beside its weights.

    Attributes:
        num_users: Rows of the user vocabulary, all others included.
        num_movies: Rows of the movie vocabulary, all others included.
        ages: Range of the age, which the network does not look at.
        years: Range of the year of release, which the network does not look at.
        scale: Rating scale of the data.
    """

    num_users: int
    num_movies: int
    ages: Range
    years: Range
    scale: RatingScale


class SimpleNetwork(nn.Module):
    """Two tables, a layer over each, two over their product. R = rows of a table, T = tower width."""

    def __init__(self, num_users: int, num_movies: int) -> None:
        super().__init__()
        self.user_table = nn.Parameter(torch.empty(num_users, ID_WIDTH))
        self.movie_table = nn.Parameter(torch.empty(num_movies, ID_WIDTH))
        self.user_layer = nn.Linear(ID_WIDTH, TOWER_WIDTH)
        self.movie_layer = nn.Linear(ID_WIDTH, TOWER_WIDTH)
        self.hidden = nn.Linear(TOWER_WIDTH, HIDDEN_WIDTH)
        self.output = nn.Linear(HIDDEN_WIDTH, 1)

    def embed_users(self, rows: Tensor) -> Tensor:
        """Runs the user tower. [B] → [B, T]."""
        return torch.relu(self.user_layer(nn.functional.embedding(rows, self.user_table)))

    def embed_movies(self, rows: Tensor) -> Tensor:
        """Runs the movie tower. [B] → [B, T]."""
        return torch.relu(self.movie_layer(nn.functional.embedding(rows, self.movie_table)))

    def meet(self, users: Tensor, movies: Tensor) -> Tensor:
        """Returns stars of what both towers gave. [..., T], [..., T] → [...]."""
        return torch.as_tensor(self.output(torch.relu(self.hidden(users * movies))))[..., 0]


class TfrsSimple(EncodedPairwise[Config, SimpleNetwork]):
    """The network behind the pairwise form."""

    name: ClassVar[str] = "tfrs-simple"
    uses_profile: ClassVar[bool] = False
    uses_content: ClassVar[bool] = False
    config_class: ClassVar[type[Config]] = Config

    @classmethod
    def make_network(cls, config: Config, vocabularies: Mapping[str, list[str]]) -> SimpleNetwork:
        """Returns a network with a table row for each word of the vocabularies."""
        return SimpleNetwork(len(vocabularies["users"]), len(vocabularies["movies"]))

    def raw_ratings(self, users: Tensor, movies: Tensor) -> Tensor:
        """Runs the layers over the product of both towers."""
        return self._network.meet(users, movies)

    @property
    def floats_per_pair(self) -> int:
        """The product, and the hidden layer before and after its ReLU."""
        return TOWER_WIDTH + 2 * HIDDEN_WIDTH

    def _user_inputs(self, features: UserFeatures) -> Tensor:
        return self._network.embed_users(self._to_device(features.rows))  # [B, T]

    def _movie_inputs(self, features: MovieFeatures, movies: MovieColumns) -> tuple[Tensor, Tensor]:
        rows = self._to_device(features.rows)  # [M]
        # The embedding rather than the tower's output, half of which its ReLU has set to zero.
        return self._network.embed_movies(rows), self._network.movie_table[rows]
