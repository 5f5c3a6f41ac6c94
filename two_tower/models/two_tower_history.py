"""The two-tower network with a watch history: user tower · movie tower = stars.

User: id, gender, age, occupation and the mean of the last movies watched; movie: id, genres, year. The history looks
its movies up in the table that the movie tower uses. It is a published notebook's network with its leaks removed: see
`trainer.fits.two_tower_history` for how it is trained.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any, ClassVar, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from two_tower.errors import MismatchedCheckpointError
from two_tower.features import FeatureEncoder, MovieFeatures, Range, UserFeatures, recent_movies
from two_tower.movie_columns import MovieColumns
from two_tower.restoring import decode_config, require_tensors, require_vocabularies
from two_tower.serving import FactoredModel, MovieEmbeddings, RatingScale, UserEmbeddings
from two_tower.user_columns import UserColumns

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": torch.relu,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
}
# All widths are the notebook's.
ID_WIDTH = 100
GENDER_WIDTH = 2
OCCUPATION_WIDTH = 4
GENRE_WIDTH = 4
USER_WIDTH = 2 * ID_WIDTH + GENDER_WIDTH + 1 + OCCUPATION_WIDTH
MOVIE_WIDTH = ID_WIDTH + GENRE_WIDTH + 1


@dataclass(frozen=True, slots=True)
class Config:
    """What the network is, beside its weights.

    Attributes:
        activation: After every layer of both towers, the last included: relu, tanh or sigmoid.
        hidden_widths: Width of each layer of both towers.
        history_length: Movies of the history that the user tower looks at.
        history_ordered: Whether those are the newest; else evenly spaced ones, for data without times.
        normalised: Whether tower outputs have length 1.
        target: "stars": rating = max(0, dot). "unit": rating = low + (high - low)·sigmoid(dot).
        ages: Range of the age.
        years: Range of the year of release.
        scale: Rating scale of the data.
    """

    activation: str
    hidden_widths: tuple[int, ...]
    history_length: int
    history_ordered: bool
    normalised: bool
    target: str
    ages: Range
    years: Range
    scale: RatingScale

    def __post_init__(self) -> None:
        problems = []
        if self.activation not in ACTIVATIONS:
            problems.append(f"config.activation is {self.activation!r}; it is one of {', '.join(ACTIVATIONS)}")
        if not self.hidden_widths or not all(0 < width <= 4096 for width in self.hidden_widths):
            problems.append("config.hidden_widths is a list of one or more widths from 1 to 4096")
        if not 0 < self.history_length <= 200:
            problems.append("config.history_length is from 1 to 200")
        if self.target not in ("stars", "unit"):
            problems.append(f"config.target is {self.target!r}; it is 'stars' or 'unit'")
        if problems:
            raise MismatchedCheckpointError(problems)


class Towers(nn.Module):
    """Both towers. B = rows of the batch, L = history length, G = genres, D = width of the last layer.

    The two id tables are passed in by the caller as looked-up rows, for that is the part which training updates
    sparsely; `user_table` and `movie_table` only keep them.
    """

    def __init__(self, config: Config, num_users: int, num_movies: int, encoder_sizes: tuple[int, int, int]) -> None:
        """Makes tables of `num_users` and `num_movies` rows, and of `encoder_sizes` genders, occupations, genres."""
        super().__init__()
        num_genders, num_occupations, num_genres = encoder_sizes
        self.user_table = nn.Parameter(torch.empty(num_users, ID_WIDTH), requires_grad=False)
        self.movie_table = nn.Parameter(torch.empty(num_movies, ID_WIDTH), requires_grad=False)
        self.gender_table = nn.Parameter(torch.empty(num_genders, GENDER_WIDTH))
        self.occupation_table = nn.Parameter(torch.empty(num_occupations, OCCUPATION_WIDTH))
        self.genre_table = nn.Parameter(torch.empty(num_genres, GENRE_WIDTH))
        self.age = nn.Linear(1, 1)
        self.year = nn.Linear(1, 1)
        self.user_layers = _layers(USER_WIDTH, config.hidden_widths)
        self.movie_layers = _layers(MOVIE_WIDTH, config.hidden_widths)
        self._activation = ACTIVATIONS[config.activation]
        self._normalised = config.normalised

    def embed_users(self, ids: Tensor, histories: Tensor, genders: Tensor, ages: Tensor, occupations: Tensor) -> Tensor:
        """Runs the user tower: id rows [B, 100], history means [B, 100], rows [B], ages [B], rows [B] → [B, D]."""
        parts = [
            ids,
            self.gender_table[genders],
            self.age(ages[:, None]),
            self.occupation_table[occupations],
            histories,
        ]
        return self._run(self.user_layers, torch.cat(parts, dim=-1))  # [B, D]

    def embed_movies(self, ids: Tensor, genres: Tensor, years: Tensor) -> Tensor:
        """Runs the movie tower: id rows [B, 100], genre shares [B, G], years [B] → [B, D]."""
        return self._run(
            self.movie_layers, torch.cat([ids, genres @ self.genre_table, self.year(years[:, None])], dim=-1)
        )  # [B, D]

    def _run(self, layers: nn.ModuleList, x: Tensor) -> Tensor:
        for layer in layers:
            x = self._activation(layer(x))
        return nn.functional.normalize(x, dim=-1) if self._normalised else x


class TwoTowerHistory(FactoredModel):
    """The network behind the factored form; its ranking score is the dot product, unclipped."""

    name: ClassVar[str] = "two-tower-history"

    def __init__(self, config: Config, encoder: FeatureEncoder, towers: Towers) -> None:
        self._config = config
        self._encoder = encoder
        self._towers = towers.eval().requires_grad_(False)

    @property
    def device(self) -> torch.device:
        """The device that holds both towers."""
        return self._towers.movie_table.device

    @property
    def rating_scale(self) -> RatingScale | None:
        """The scale of the data."""
        return self._config.scale

    @torch.no_grad()
    def embed_movies(self, movies: MovieColumns) -> MovieEmbeddings:
        """Runs the movie tower; a movie that the checkpoint does not know has the unknown row, genres and year."""
        features = self._encoder.encode_movies(movies)
        vectors = self._movie_vectors(features)  # [M, D]
        biases = torch.zeros(len(movies), device=self.device)  # [M]
        known = features.rows > 0
        rows = np.where(known, features.rows, -1)
        return MovieEmbeddings(vectors, biases, vectors, biases, known, rows)

    @torch.no_grad()
    def embed_users(self, users: UserColumns, movies: MovieEmbeddings) -> UserEmbeddings:
        """Runs the user tower; a user that the checkpoint does not know has the unknown row, profile and history."""
        features = self._encoder.encode_users(users.user_ids, users.profiles)
        numbers = recent_movies(
            users.histories, self._config.history_length, ordered=self._config.history_ordered
        )  # [B, L]
        # An unknown movie counts in the mean with the unknown row, as an unknown user's id does.
        rows = np.maximum(movies.movie_rows[numbers], 0) if len(movies) else np.zeros_like(numbers)
        vectors = self._user_vectors(features, np.where(numbers < 0, -1, rows))  # [B, D]
        return UserEmbeddings(vectors, vectors)

    def knows_users(self, user_ids: list[str | None]) -> NDArray[np.bool_]:
        """Tells for each id whether it has a trained row."""
        return self._encoder.users.rows_of(user_ids) > 0

    def link(self, raw_ratings: NDArray[np.float32]) -> NDArray[np.float32]:
        """Maps dot products to stars."""
        if self._config.target == "stars":
            return np.maximum(raw_ratings, 0)
        low, high = self._config.scale.low, self._config.scale.high
        return (low + (high - low) / (1 + np.exp(-raw_ratings))).astype(np.float32)

    def config(self) -> dict[str, Any]:
        """Returns the config as JSON values."""
        return {**asdict(self._config), "hidden_widths": list(self._config.hidden_widths)}

    def tensors(self) -> dict[str, Tensor]:
        """Returns all weights by name."""
        return {name: tensor.detach().cpu().contiguous() for name, tensor in self._towers.state_dict().items()}

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
        """Rebuilds the network."""
        parsed = decode_config(Config, config)
        require_vocabularies(vocabularies, FeatureEncoder.vocabulary_names())
        encoder = FeatureEncoder.restore(vocabularies, parsed.ages, parsed.years)
        with torch.device("meta"):
            towers = make_towers(parsed, encoder)
        shapes = {name: tuple(tensor.shape) for name, tensor in towers.state_dict().items()}
        require_tensors(tensors, shapes)
        towers.load_state_dict(dict(tensors), strict=True, assign=True)
        return cls(parsed, encoder, towers.to(device))

    def _movie_vectors(self, features: MovieFeatures) -> Tensor:
        return self._towers.embed_movies(
            self._towers.movie_table[self._to_device(features.rows)],
            self._to_device(features.genres),
            self._to_device(features.years),
        )

    def _user_vectors(self, features: UserFeatures, history_rows: NDArray[np.int64]) -> Tensor:
        return self._towers.embed_users(
            self._towers.user_table[self._to_device(features.rows)],
            mean_of_rows(self._towers.movie_table, self._to_device(history_rows)),
            self._to_device(features.genders),
            self._to_device(features.ages),
            self._to_device(features.occupations),
        )

    def _to_device(self, array: NDArray[Any]) -> Tensor:
        return torch.from_numpy(array).to(self.device)


def make_towers(config: Config, encoder: FeatureEncoder) -> Towers:
    """Returns towers of the right shapes, id tables without values."""
    sizes = (len(encoder.genders), len(encoder.occupations), len(encoder.genres))
    return Towers(config, len(encoder.users), len(encoder.movies), sizes)


def mean_of_rows(table: Tensor, rows: Tensor) -> Tensor:
    """Returns the mean of the table's rows named by each row of `rows` [B, L], zeros where all are -1. [B, W]."""
    inside = rows >= 0  # [B, L]
    summed = (table[rows.clamp(min=0)] * inside[..., None]).sum(dim=1)  # [B, W]
    return summed / inside.sum(dim=1, keepdim=True).clamp(min=1)  # [B, W]


def _layers(width: int, hidden_widths: tuple[int, ...]) -> nn.ModuleList:
    widths = (width, *hidden_widths)
    return nn.ModuleList(nn.Linear(n_in, n_out) for n_in, n_out in pairwise(widths))
