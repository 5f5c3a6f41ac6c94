"""The scalable neural model behind the factored form: two towers, each with a rating and a ranking head.

See `two_tower.models.two_tower_towers` for the network and `trainer.fits.two_tower` for how it is trained.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from two_tower.features import FeatureEncoder
from two_tower.models.two_tower_config import TwoTowerConfig
from two_tower.models.two_tower_content import ContentWords
from two_tower.models.two_tower_towers import HistoryInputs, ProfileInputs, TableSizes, Towers
from two_tower.movie_columns import MovieColumns
from two_tower.restoring import decode_config, require_tensors, require_vocabularies
from two_tower.serving import FactoredModel, MovieEmbeddings, RatingScale, UserEmbeddings
from two_tower.user_columns import Histories, UserColumns

_USERS_AT_ONCE = 64
"""Histories laid out at once: 64 x 200 events x 385 numbers are 20 MB."""


@dataclass(frozen=True, slots=True)
class TwoTowerMovies(MovieEmbeddings):
    """The movie side over one catalogue, with what a history needs of each movie, the unknown ones included.

    Attributes:
        history_inputs: See `MovieParts.history_inputs`. [M, 2D + 2R + 1]
    """

    history_inputs: Tensor


class TwoTower(FactoredModel):
    """The network behind the factored form."""

    name: ClassVar[str] = "two-tower"

    def __init__(self, config: TwoTowerConfig, encoder: FeatureEncoder, words: ContentWords, towers: Towers) -> None:
        self._config = config
        self._encoder = encoder
        self._words = words
        self._towers = towers.eval().requires_grad_(False)

    @property
    def device(self) -> torch.device:
        """The device that holds both towers."""
        return self._towers.ranking_table.device

    @property
    def rating_scale(self) -> RatingScale | None:
        """The scale of the data, None if it had no ratings."""
        return self._config.scale

    @torch.no_grad()
    def embed_movies(self, movies: MovieColumns) -> TwoTowerMovies:
        """Runs the movie tower; a movie that the checkpoint does not know has the unknown row and its content."""
        rows = self._encoder.movies.rows_of(movies.movie_ids)
        content = self._words.encode(movies)
        columns = (rows, content.rows, content.offsets[:-1], content.weights)
        parts = self._towers.embed_movies(*(self._to_device(column) for column in columns))
        biases = parts.rating_biases[:, None]  # [M, 1]
        ones = torch.ones_like(biases)
        known = rows > 0
        return TwoTowerMovies(
            rating_vectors=torch.cat([parts.tastes, biases, ones], dim=-1),  # [M, R + 2]
            rating_biases=parts.rating_biases + self._config.mean_rating,
            ranking_vectors=parts.candidates.contiguous(),
            ranking_biases=parts.candidate_biases.contiguous(),
            known=known,
            movie_rows=np.where(known, rows, -1),
            history_inputs=parts.history_inputs(),
        )

    @torch.no_grad()
    def embed_users(self, users: UserColumns, movies: MovieEmbeddings) -> UserEmbeddings:
        """Runs the user tower; a user that the checkpoint does not know has the unknown row, profile and history."""
        assert isinstance(movies, TwoTowerMovies)
        features = self._encoder.encode_users(users.user_ids, users.profiles)
        rows = np.stack([features.rows, features.genders, features.occupations], axis=-1)  # [B, 3]
        ages = np.stack([features.ages, features.age_missing.astype(np.float32)], axis=-1)  # [B, 2]
        rating, ranking = [], []
        for start in range(0, len(users), _USERS_AT_ONCE):
            some = slice(start, start + _USERS_AT_ONCE)
            history = self._history(users.histories, start, min(start + _USERS_AT_ONCE, len(users)), movies)
            profile = ProfileInputs(self._to_device(rows[some]), self._to_device(ages[some]))
            parts = self._towers.embed_users(history, profile)
            # The movie's bias meets the user's spread, 1 of which is in the movie's own bias.
            spread, biases = parts.spread - 1, parts.rating_biases  # [b, 1] each
            rating.append(torch.cat([parts.rating[:, 0], spread, biases], dim=-1))  # [b, R + 2]
            ranking.append(parts.ranking[:, 0])
        if not rating:
            return UserEmbeddings(
                movies.rating_vectors.new_zeros(0, self._config.rating_size + 2),
                movies.ranking_vectors.new_zeros(0, self._config.ranking_size),
            )
        return UserEmbeddings(torch.cat(rating), torch.cat(ranking))

    def knows_users(self, user_ids: list[str | None]) -> NDArray[np.bool_]:
        """Tells for each id whether it has a trained row."""
        return self._encoder.users.rows_of(user_ids) > 0

    def config(self) -> dict[str, Any]:
        """Returns the config as JSON values."""
        return {**asdict(self._config), "bags": list(self._config.bags)}

    def tensors(self) -> dict[str, Tensor]:
        """Returns all weights by name."""
        return {name: tensor.detach().cpu().contiguous() for name, tensor in self._towers.state_dict().items()}

    def vocabularies(self) -> dict[str, list[str]]:
        """Returns all vocabularies by name."""
        return {**self._encoder.vocabularies(), **self._words.vocabularies()}

    @classmethod
    def restore(
        cls,
        config: Mapping[str, Any],
        tensors: Mapping[str, Tensor],
        vocabularies: Mapping[str, list[str]],
        device: torch.device,
    ) -> Self:
        """Rebuilds the network."""
        parsed = decode_config(TwoTowerConfig, config)
        names = (*FeatureEncoder.vocabulary_names(), *ContentWords.vocabulary_names(parsed.bags))
        require_vocabularies(vocabularies, names)
        encoder = FeatureEncoder.restore(vocabularies, parsed.ages, parsed.years)
        words = ContentWords.restore(vocabularies, parsed.bags, parsed.years)
        with torch.device("meta"):
            towers = make_towers(parsed, encoder, words)
        shapes = {name: tuple(tensor.shape) for name, tensor in towers.state_dict().items()}
        require_tensors(tensors, shapes)
        towers.load_state_dict(dict(tensors), strict=True, assign=True)
        return cls(parsed, encoder, words, towers.to(device))

    def _history(self, histories: Histories, first: int, last: int, movies: TwoTowerMovies) -> HistoryInputs:
        """Lays out the newest events of users first up to last, newest first."""
        length = self._config.history_length
        starts = histories.offsets[first:last]  # [B]
        sizes = np.minimum(histories.offsets[first + 1 : last + 1] - starts, length)  # [B]
        columns = np.arange(max(1, int(sizes.max(initial=0))))
        inside = columns < sizes[:, None]  # [B, L]
        if not histories.movie_numbers.size or not len(movies):
            inside[:] = False
        entries = np.where(inside, starts[:, None] + columns, 0)
        numbers = histories.movie_numbers[entries] if inside.any() else np.zeros_like(entries)
        ratings = histories.ratings[entries] if inside.any() else np.full(entries.shape, np.nan, np.float32)
        if len(movies):
            inputs = movies.history_inputs[self._to_device(numbers.astype(np.int64))]  # [B, L, .]
        else:
            inputs = movies.history_inputs.new_zeros(*inside.shape, movies.history_inputs.shape[1])
        ages = np.where(inside, columns, -1)[:, None]  # [B, 1, L]
        return HistoryInputs(
            inputs,
            self._to_device(np.where(inside, ratings, np.float32(np.nan))),
            self._to_device(ages),
            self._to_device(inside[:, None].astype(np.float32)),
        )

    def _to_device(self, array: NDArray[Any]) -> Tensor:
        return torch.from_numpy(array).to(self.device)


def make_towers(config: TwoTowerConfig, encoder: FeatureEncoder, words: ContentWords) -> Towers:
    """Returns towers of the right shapes, without values."""
    sizes = TableSizes(
        users=len(encoder.users),
        movies=len(encoder.movies),
        genders=len(encoder.genders),
        occupations=len(encoder.occupations),
        content=words.num_trained,
        title_words=words.num_title_words,
    )
    return Towers(config, sizes)
