"""What models share that are tables of rows: keeping them, naming their rows, rebuilding from a checkpoint.

Knows vocabularies, tensors and their shapes; knows no formula. Row 0 of a table of users or movies stands for whoever
the checkpoint does not know.
"""

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Generic, Self, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from two_tower.features import FeatureEncoder, Range, bag_shares
from two_tower.movie_columns import MovieColumns
from two_tower.restoring import decode_config, require_tensors, require_vocabularies
from two_tower.serving import MoviesT, RatingScale, ServedModel, UsersT


@dataclass(frozen=True, slots=True, kw_only=True)
class TableConfig:
    """What every table model is, beside its tables.

    Attributes:
        scale: Rating scale of the data; None if it had no ratings.
        ages: Range of the age.
        years: Range of the year of release.
    """

    scale: RatingScale | None
    ages: Range
    years: Range


ConfigT = TypeVar("ConfigT", bound=TableConfig)


class TableModel(ServedModel[MoviesT, UsersT], Generic[MoviesT, UsersT, ConfigT]):
    """A model whose weights are named tables."""

    config_class: ClassVar[type[TableConfig]]

    def __init__(self, config: ConfigT, encoder: FeatureEncoder, tensors: Mapping[str, Tensor]) -> None:
        """Takes the tensors that `tensor_shapes` names, all on one device."""
        self._config = config
        self._encoder = encoder
        self._tensors = dict(tensors)

    @classmethod
    @abstractmethod
    def tensor_shapes(cls, config: ConfigT, encoder: FeatureEncoder) -> dict[str, tuple[int, ...]]:
        """Returns name and shape of every tensor; at least one is as long as the movie vocabulary."""

    @property
    def device(self) -> torch.device:
        """The device that holds the tables."""
        return next(iter(self._tensors.values())).device

    @property
    def rating_scale(self) -> RatingScale | None:
        """The scale of the data."""
        return self._config.scale

    def knows_users(self, user_ids: list[str | None]) -> NDArray[np.bool_]:
        """Tells for each id whether it was trained on."""
        return self._encoder.users.rows_of(user_ids) > 0

    def config(self) -> dict[str, Any]:
        """Returns the config as JSON values."""
        return asdict(self._config)

    def tensors(self) -> dict[str, Tensor]:
        """Returns all tables by name."""
        return {name: tensor.detach().cpu().contiguous() for name, tensor in self._tensors.items()}

    def vocabularies(self) -> dict[str, list[str]]:
        """Returns all vocabularies by name."""
        return self._encoder.vocabularies()

    @classmethod
    def restore(
        cls,
        config: Mapping[str, Any],
        tensors: Mapping[str, Tensor],
        vocabularies: Mapping[str, list[str]],
        device: torch.device,
    ) -> Self:
        """Rebuilds the model."""
        parsed: Any = decode_config(cls.config_class, config)
        require_vocabularies(vocabularies, FeatureEncoder.vocabulary_names())
        encoder = FeatureEncoder.restore(vocabularies, parsed.ages, parsed.years)
        require_tensors(tensors, cls.tensor_shapes(parsed, encoder))
        return cls(parsed, encoder, {name: tensor.to(device) for name, tensor in tensors.items()})

    def _rows_of(self, movies: MovieColumns) -> tuple[Tensor, NDArray[np.bool_], NDArray[np.int64]]:
        """Returns each movie's table row, whether the checkpoint knows it, and the row or -1. [M] each."""
        rows = self._encoder.movies.rows_of(movies.movie_ids)
        known = rows > 0
        return self._to_device(rows), known, np.where(known, rows, -1)

    def _content_of(self, movies: MovieColumns) -> Tensor:
        """Returns vectors by which movies of like genres and years are alike. float32 [M, genres + 1].

        The last coordinate, the year within 0.5..1.5, keeps a movie without genres from having no direction.
        """
        genres = bag_shares(movies.genres, self._encoder.genres)[:, 1:]  # [M, genres]
        years, missing = self._encoder.years.scale(movies.years)
        place = 0.5 + np.where(missing, np.float32(0.5), years)
        return self._to_device(np.concatenate([genres, place[:, None]], axis=1).astype(np.float32))

    def _to_device(self, array: NDArray[Any]) -> Tensor:
        return torch.from_numpy(array).to(self.device)
