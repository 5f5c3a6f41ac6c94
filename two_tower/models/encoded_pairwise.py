"""What pairwise models over encoded features share: ids and weights in, answers and parts out. Knows no layer.

A first layer over user and movie side by side is a sum of two parts, W·[u; m] = W_u·u + W_m·m: so what a user and a
movie bring to a pair is worked out once, and a pair costs what comes after it.
"""

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, Generic, Protocol, Self, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from two_tower import strict_json
from two_tower.errors import MismatchedCheckpointError
from two_tower.features import FeatureEncoder, MovieFeatures, Range, UserFeatures
from two_tower.movie_columns import MovieColumns
from two_tower.restoring import decode_config, require_tensors, require_vocabularies
from two_tower.serving import PairwiseModel, PairwiseMovies, PairwiseUsers, RatingScale
from two_tower.user_columns import UserColumns


class EncodedConfig(Protocol):
    """What every such config holds beside what is the model's own.

    Attributes:
        num_users: Rows of the user vocabulary, row 0 included.
        num_movies: Rows of the movie vocabulary, row 0 included.
        ages: Range of the age.
        years: Range of the year of release.
        scale: Rating scale of the data.
    """

    @property
    def num_users(self) -> int: ...  # noqa: D102
    @property
    def num_movies(self) -> int: ...  # noqa: D102
    @property
    def ages(self) -> Range: ...  # noqa: D102
    @property
    def years(self) -> Range: ...  # noqa: D102
    @property
    def scale(self) -> RatingScale: ...  # noqa: D102


ConfigT = TypeVar("ConfigT", bound=EncodedConfig)
NetworkT = TypeVar("NetworkT", bound=nn.Module)


class EncodedPairwise(PairwiseModel, Generic[ConfigT, NetworkT]):
    """A pairwise model without a history: features of the user, features of the movie, a network."""

    uses_history: ClassVar[bool] = False
    config_class: ClassVar[type[Any]]
    vocabulary_names: ClassVar[tuple[str, ...]] = FeatureEncoder.vocabulary_names()

    def __init__(self, config: ConfigT, encoder: FeatureEncoder, network: NetworkT) -> None:
        self._config = config
        self._encoder = encoder
        self._network = network.eval().requires_grad_(False)

    @classmethod
    @abstractmethod
    def make_network(cls, config: ConfigT, vocabularies: Mapping[str, list[str]]) -> NetworkT:
        """Returns a network of the right shapes, without values."""

    @abstractmethod
    def _user_inputs(self, features: UserFeatures) -> Tensor:
        """Returns what the network needs of users. [B, X]."""

    @abstractmethod
    def _movie_inputs(self, features: MovieFeatures, movies: MovieColumns) -> tuple[Tensor, Tensor]:
        """Returns what the network needs of movies, and vectors whose cosine compares them. [M, Y] and [M, K]."""

    @property
    def device(self) -> torch.device:
        """The device that holds the network."""
        return next(self._network.parameters()).device

    @property
    def rating_scale(self) -> RatingScale | None:
        """The scale of the data."""
        return self._config.scale

    @torch.no_grad()
    def embed_movies(self, movies: MovieColumns) -> PairwiseMovies:
        """Works out what movies bring to a pair; one that the checkpoint does not know has the unknown row."""
        features = self._encoder.encode_movies(movies)
        inputs, similarity = self._movie_inputs(features, movies)
        known = features.rows > 0
        return PairwiseMovies(inputs, similarity, known, np.where(known, features.rows, -1))

    @torch.no_grad()
    def embed_users(self, users: UserColumns, movies: PairwiseMovies) -> PairwiseUsers:
        """Works out what users bring to a pair; one that the checkpoint does not know has the unknown row."""
        return PairwiseUsers(self._user_inputs(self._encoder.encode_users(users.user_ids, users.profiles)))

    def knows_users(self, user_ids: list[str | None]) -> NDArray[np.bool_]:
        """Tells for each id whether it has a trained row."""
        return self._encoder.users.rows_of(user_ids) > 0

    def config(self) -> dict[str, Any]:
        """Returns the config as JSON values."""
        encoded: dict[str, Any] = strict_json.encode(self._config)
        return encoded

    def tensors(self) -> dict[str, Tensor]:
        """Returns all weights by name."""
        return {name: tensor.detach().cpu().contiguous() for name, tensor in self._network.state_dict().items()}

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
        parsed: ConfigT = decode_config(cls.config_class, config)
        require_vocabularies(vocabularies, cls.vocabulary_names)
        _require_sizes(parsed, vocabularies)
        with torch.device("meta"):
            network = cls.make_network(parsed, vocabularies)
        require_tensors(tensors, {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()})
        network.load_state_dict(dict(tensors), strict=True, assign=True)
        network.to(device)
        return cls._assemble(parsed, vocabularies, network)

    @classmethod
    def _assemble(cls, config: ConfigT, vocabularies: Mapping[str, list[str]], network: NetworkT) -> Self:
        return cls(config, _encoder_of(config, vocabularies), network)

    def _to_device(self, array: NDArray[Any]) -> Tensor:
        return torch.from_numpy(array).to(self.device)


def _encoder_of(config: EncodedConfig, vocabularies: Mapping[str, list[str]]) -> FeatureEncoder:
    return FeatureEncoder.restore(vocabularies, config.ages, config.years)


def _require_sizes(config: EncodedConfig, vocabularies: Mapping[str, list[str]]) -> None:
    problems = [
        f"vocabulary {name!r} has {len(vocabularies[name])} rows and config.num_{name} says {expected}"
        for name, expected in (("users", config.num_users), ("movies", config.num_movies))
        if len(vocabularies[name]) != expected
    ]
    if problems:
        raise MismatchedCheckpointError(problems)
