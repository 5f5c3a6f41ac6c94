"""Neighbourhoods of movies: what a user made of the movies most like this one says what he will make of it.

Rating: biases plus the mean of his residuals on the movie's neighbours, weighted by adjusted cosine (Sarwar et al.
2001, section 3.1.3; baselines removed as in Koren 2010, section 2.2). Ranking: the sum of cosines with the movies that
he watched, the last ones counting more where the data has times. All that it knows of a user is his history, and, of
one whose history was trimmed, a bias.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from two_tower.errors import MismatchedCheckpointError
from two_tower.features import FeatureEncoder
from two_tower.models.baselines import biases_of_histories
from two_tower.models.table_model import TableConfig, TableModel
from two_tower.movie_columns import MovieColumns
from two_tower.serving import PairwiseModel, PairwiseMovies, PairwiseUsers
from two_tower.user_columns import UserColumns

_ENTRY_WIDTH = 4
"""Numbers of a history entry in a user's inputs: row, residual, whether it was rated, weight by age."""
_MAX_ROWS = 1 << 24
"""Rows that float32 tells apart."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemKnnConfig(TableConfig):
    """What a neighbourhood model is, beside its tables.

    Attributes:
        global_mean: Mean rating in stars, 0 without ratings.
        user_damping: Ratings as expected that a user is given beside his own where his bias is taken.
        neighbours: Neighbours kept of each movie.
        vector_size: Coordinates of the vectors that similar movies are found by.
        residual_damping: Similarity that speaks for no residual, beside that of the rated neighbours.
        decay_events: An event counts e^(-a / decay_events) + floor, a events back from the newest; 0: all the same.
        decay_floor: See `decay_events`.
    """

    global_mean: float
    user_damping: float
    neighbours: int
    vector_size: int
    residual_damping: float
    decay_events: float
    decay_floor: float

    def __post_init__(self) -> None:
        problems = []
        if not 0 < self.neighbours <= 4096 or not 0 < self.vector_size <= 4096:
            problems.append("config.neighbours and config.vector_size are from 1 to 4096")
        if not self.user_damping > 0 or not self.residual_damping > 0:
            problems.append("config.user_damping and config.residual_damping are above 0")
        if not self.decay_events >= 0 or not self.decay_floor >= 0:
            problems.append("config.decay_events and config.decay_floor are not below 0")
        if problems:
            raise MismatchedCheckpointError(problems)


class ItemKnn(TableModel[PairwiseMovies, PairwiseUsers, ItemKnnConfig], PairwiseModel):
    """I movies, row 0 the unknown's, k neighbours each, for both heads.

    `movies.rating_neighbours` and `movies.ranking_neighbours` [I, k] are rows, padded with 0, `..._similarities` [I, k]
    how alike they are, padded with 0; `movies.biases` [I], `users.biases` [U], `movies.vectors` [I, K].
    A user's inputs are his history sorted by row, 4 numbers an entry, and his bias.
    """

    name: ClassVar[str] = "item-knn"
    config_class: ClassVar[type[TableConfig]] = ItemKnnConfig
    uses_profile: ClassVar[bool] = False
    uses_content: ClassVar[bool] = False

    def __init__(self, config: ItemKnnConfig, encoder: FeatureEncoder, tensors: Mapping[str, Tensor]) -> None:
        """Takes the tensors that `tensor_shapes` names. Raises `MismatchedCheckpointError` if one is not of rows."""
        problems = []
        for name in (f"movies.{head}_neighbours" for head in _HEADS):
            rows = tensors[name]
            if not bool(((rows >= 0) & (rows < len(encoder.movies)) & (rows == rows.round())).all()):
                problems.append(
                    f"tensor {name} holds what is no row of a movie; they are 0 to {len(encoder.movies) - 1}"
                )
        if problems:
            raise MismatchedCheckpointError(problems)
        super().__init__(config, encoder, tensors)

    @classmethod
    def tensor_shapes(cls, config: ItemKnnConfig, encoder: FeatureEncoder) -> dict[str, tuple[int, ...]]:
        """Returns the shapes of all tables."""
        users, movies, kept = len(encoder.users), len(encoder.movies), config.neighbours
        if movies > _MAX_ROWS:
            raise MismatchedCheckpointError([f"vocabulary 'movies' has more than {_MAX_ROWS:,} words"])
        return {
            "movies.rating_neighbours": (movies, kept),
            "movies.rating_similarities": (movies, kept),
            "movies.ranking_neighbours": (movies, kept),
            "movies.ranking_similarities": (movies, kept),
            "movies.vectors": (movies, config.vector_size),
            "movies.biases": (movies,),
            "users.biases": (users,),
        }

    @property
    def floats_per_pair(self) -> int:
        """Places and values of the neighbours."""
        return 8 * self._config.neighbours

    @torch.no_grad()
    def embed_movies(self, movies: MovieColumns) -> PairwiseMovies:
        """Looks neighbours up; a movie that the checkpoint does not know has none."""
        index, known, rows = self._rows_of(movies)
        tables = [self._tensors[f"movies.{head}_{what}"] for head in _HEADS for what in ("neighbours", "similarities")]
        inputs = [table[index] for table in tables] + [self._tensors["movies.biases"][index][:, None]]
        return PairwiseMovies(torch.cat(inputs, dim=-1), self._tensors["movies.vectors"][index], known, rows)

    @torch.no_grad()
    def embed_users(self, users: UserColumns, movies: PairwiseMovies) -> PairwiseUsers:
        """Lays histories out, sorted by row. What a user watched that the checkpoint does not know is passed over."""
        config, histories = self._config, users.histories
        expected = np.float32(config.global_mean) + movies.inputs[:, -1].cpu().numpy()  # [M]
        biases = biases_of_histories(users, expected, config.user_damping)  # [B]
        trained_rows = self._encoder.users.rows_of(users.user_ids)
        trained = self._tensors["users.biases"].cpu().numpy()[trained_rows]
        biases = np.where((trained_rows > 0) & ~histories.complete, trained, biases)

        sizes = np.diff(histories.offsets)
        owners = np.repeat(np.arange(len(users)), sizes)  # [E]
        ages = np.arange(len(owners)) - np.repeat(histories.offsets[:-1], sizes)  # [E]
        weights = np.ones(len(owners))
        if config.decay_events:
            weights = np.exp(-ages / config.decay_events) + config.decay_floor
        rows = movies.movie_rows[histories.movie_numbers]
        rated = ~np.isnan(histories.ratings)
        residuals = np.where(rated, histories.ratings - expected[histories.movie_numbers] - biases[owners], 0)
        known = np.flatnonzero(rows > 0)
        order = known[np.lexsort((rows[known], owners[known]))]
        counts = np.bincount(owners[order], minlength=len(users))
        places = np.arange(len(order)) - np.repeat(np.cumsum(counts) - counts, counts)
        entries = np.zeros((len(users), _ENTRY_WIDTH, max(1, int(counts.max(initial=0)))), np.float32)  # [B, 4, L]
        entries[:, 0] = _MAX_ROWS
        for what, column in enumerate((rows, residuals, rated, weights)):
            entries[owners[order], what, places] = column[order]
        flat = entries.reshape(len(users), _ENTRY_WIDTH * entries.shape[-1])
        inputs = np.concatenate([flat, biases[:, None]], axis=1)
        return PairwiseUsers(self._to_device(inputs.astype(np.float32)))

    @torch.no_grad()
    def raw_ratings(self, users: Tensor, movies: Tensor) -> Tensor:
        """Returns biases plus the weighted mean of residuals. [..., X], [..., Y] → [...]."""
        places, found = self._matches("rating", users, movies)  # [..., k] each
        similarities = self._similarities("rating", movies) * found
        residuals, rated = (torch.gather(self._entries(users, what, places), -1, places) for what in (1, 2))
        # One kernel for one pair and for many: sums of k products in the same order.
        return self._explain((similarities * residuals).sum(-1), (similarities * rated).sum(-1), users, movies)

    @torch.no_grad()
    def ranking_scores(self, users: Tensor, movies: Tensor) -> Tensor:
        """Returns the weighted sum of similarities. [..., X], [..., Y] → [...]."""
        places, found = self._matches("ranking", users, movies)
        weights = torch.gather(self._entries(users, 3, places), -1, places)
        return (self._similarities("ranking", movies) * found * weights).sum(-1)

    @torch.no_grad()
    def raw_ratings_of_all(self, users: Tensor, movies: Tensor) -> Tensor:
        """Returns what `raw_ratings` does, by one pass over all neighbours. [B, X], [M, Y] → [B, M]."""
        above = self._sum_over_neighbours("rating", 1, users, movies)
        below = self._sum_over_neighbours("rating", 2, users, movies)
        return self._explain(above, below, users[:, None], movies[None])

    @torch.no_grad()
    def ranking_scores_of_all(self, users: Tensor, movies: Tensor) -> Tensor:
        """Returns what `ranking_scores` does, by one pass over all neighbours. [B, X], [M, Y] → [B, M]."""
        return self._sum_over_neighbours("ranking", 3, users, movies)

    def _explain(self, above: Tensor, below: Tensor, users: Tensor, movies: Tensor) -> Tensor:
        expected = self._config.global_mean + movies[..., -1] + users[..., -1]
        return expected + above / (below + self._config.residual_damping)

    def _neighbours(self, head: str, movies: Tensor) -> Tensor:
        start = 2 * self._config.neighbours * _HEADS.index(head)
        return movies[..., start : start + self._config.neighbours]

    def _similarities(self, head: str, movies: Tensor) -> Tensor:
        start = (2 * _HEADS.index(head) + 1) * self._config.neighbours
        return movies[..., start : start + self._config.neighbours]

    def _entries(self, users: Tensor, what: int, places: Tensor) -> Tensor:
        length = (users.shape[-1] - 1) // _ENTRY_WIDTH
        column = users[..., what * length : (what + 1) * length]
        return column.expand(*places.shape[:-1], length)

    def _matches(self, head: str, users: Tensor, movies: Tensor) -> tuple[Tensor, Tensor]:
        """Returns where each neighbour would stand in the history, and whether it does stand there. [..., k] each."""
        neighbours = self._neighbours(head, movies)
        shape = np.broadcast_shapes(users.shape[:-1], movies.shape[:-1])
        neighbours = neighbours.expand(*shape, -1).contiguous()  # [..., k]
        rows = self._entries(users, 0, neighbours).contiguous()  # [..., L]
        places = torch.searchsorted(rows, neighbours).clamp_(max=rows.shape[-1] - 1)
        return places, torch.gather(rows, -1, places) == neighbours

    def _sum_over_neighbours(self, head: str, what: int, users: Tensor, movies: Tensor) -> Tensor:
        length = (users.shape[-1] - 1) // _ENTRY_WIDTH
        rows = users[:, :length].to(torch.int64)  # [B, L]
        values = users[:, what * length : (what + 1) * length]
        if not len(movies) or not len(users):
            return users.new_zeros(len(users), len(movies))
        table = users.new_zeros(len(self._encoder.movies) + 1, len(users))  # [I + 1, B], padding goes to the last
        at = torch.arange(len(users), device=users.device)[:, None].expand_as(rows)
        table[rows.clamp(max=len(table) - 1), at] = values
        table[-1] = 0
        neighbours = self._neighbours(head, movies).to(torch.int64)
        similarities = self._similarities(head, movies).contiguous()
        summed = functional.embedding_bag(neighbours, table, mode="sum", per_sample_weights=similarities)  # [M, B]
        return summed.T.contiguous()


_HEADS = ("rating", "ranking")
