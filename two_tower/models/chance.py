"""Baselines that guess: the rating of a user for a movie is drawn, and always the same.

The number that decides is a hash of three: seed, user and movie. So what is served is what was measured, and what is
asked together what is asked alone. Everybody and everything that the checkpoint does not know has the keys of row 0.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from two_tower.features import FeatureEncoder
from two_tower.models.table_model import TableConfig, TableModel
from two_tower.movie_columns import MovieColumns
from two_tower.serving import PairwiseModel, PairwiseMovies, PairwiseUsers, RatingScale
from two_tower.user_columns import UserColumns

KEY_PIECES = 3
"""A key is 63 bits in pieces of 21, each of which float32 holds exactly."""
PIECE_BITS = 21

# Vigna's splitmix64, the public-domain mixer of java.util.SplittableRandom (Steele et al. 2014), as signed numbers.
_GOLDEN = -7046029254386353131
_MIX_1 = -4658895280553007687
_MIX_2 = -7723592293110705685


def num_steps(scale: RatingScale) -> int:
    """Returns how many ratings a user could give."""
    return round((scale.high - scale.low) / scale.step) + 1


@dataclass(frozen=True, slots=True, kw_only=True)
class ChanceConfig(TableConfig):
    """What a guess is, beside its tables: nothing more."""


class Chance(TableModel[PairwiseMovies, PairwiseUsers, ChanceConfig], PairwiseModel):
    """The tables `users.keys` [U, 3], `movies.keys` [I, 3] and `shares` [ratings of the scale], which sums to 1."""

    config_class: ClassVar[type[TableConfig]] = ChanceConfig
    uses_history: ClassVar[bool] = False
    uses_profile: ClassVar[bool] = False
    uses_content: ClassVar[bool] = False

    @classmethod
    def tensor_shapes(cls, config: ChanceConfig, encoder: FeatureEncoder) -> dict[str, tuple[int, ...]]:
        """Returns the shapes of the three tables."""
        return {
            "users.keys": (len(encoder.users), KEY_PIECES),
            "movies.keys": (len(encoder.movies), KEY_PIECES),
            "shares": (num_steps(config.scale) if config.scale is not None else 0,),
        }

    @property
    def floats_per_pair(self) -> int:
        """A few 64-bit numbers."""
        return 16

    @torch.no_grad()
    def embed_movies(self, movies: MovieColumns) -> PairwiseMovies:
        """Looks keys up."""
        index, known, rows = self._rows_of(movies)
        return PairwiseMovies(self._tensors["movies.keys"][index], self._content_of(movies), known, rows)

    @torch.no_grad()
    def embed_users(self, users: UserColumns, movies: PairwiseMovies) -> PairwiseUsers:
        """Looks keys up."""
        rows = self._encoder.users.rows_of(users.user_ids)
        return PairwiseUsers(self._tensors["users.keys"][self._to_device(rows)])

    @torch.no_grad()
    def raw_ratings(self, users: Tensor, movies: Tensor) -> Tensor:
        """Returns the rating that the number stands for. [..., 3], [..., 3] → [...]."""
        numbers = self.ranking_scores(users, movies)
        scale = self._config.scale
        if scale is None:
            return numbers
        reached = torch.cumsum(self._tensors["shares"], dim=0)[:-1].contiguous()  # [ratings - 1]
        return scale.low + scale.step * torch.searchsorted(reached, numbers.contiguous(), right=True).float()

    @torch.no_grad()
    def ranking_scores(self, users: Tensor, movies: Tensor) -> Tensor:
        """Returns the number, within 0..1, evenly spread. [..., 3], [..., 3] → [...]."""
        mixed = _mix(_mix(_whole(users)) * _GOLDEN + _whole(movies))
        return _shifted(mixed, 40).float() * 2.0**-24


class Random(Chance):
    """Every rating of the scale as likely as any other."""

    name: ClassVar[str] = "random"


class Weighted(Chance):
    """Every rating as likely as it is frequent."""

    name: ClassVar[str] = "weighted"


def _whole(keys: Tensor) -> Tensor:
    """Puts the pieces of keys together. [..., 3] → int64 [...]."""
    pieces = keys.to(torch.int64)
    return pieces[..., 0] + (pieces[..., 1] << PIECE_BITS) + (pieces[..., 2] << 2 * PIECE_BITS)


def _mix(numbers: Tensor) -> Tensor:
    """Spreads numbers over all 64 bits; products wrap around."""
    numbers = numbers + _GOLDEN
    numbers = (numbers ^ _shifted(numbers, 30)) * _MIX_1
    numbers = (numbers ^ _shifted(numbers, 27)) * _MIX_2
    return numbers ^ _shifted(numbers, 31)


def _shifted(numbers: Tensor, bits: int) -> Tensor:
    """Shifts right as if numbers had no sign."""
    return (numbers >> bits) & ((1 << (64 - bits)) - 1)
