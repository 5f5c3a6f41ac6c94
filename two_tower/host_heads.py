"""Rates pairs and ranks for one user by numpy on the host, exactly as a batch does, without what a batch costs.

Most of what a batch takes where the users' vectors are at hand is the care of a batch: rows, masks by row, tensors that
are taken apart and joined. It costs several times what the products cost. Knows vectors; no stored user and no RPC.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from two_tower.scoring import stars
from two_tower.serving import MovieEmbeddings, ServedModel, UserEmbeddings
from two_tower.top_k import MovieMatrix, Ranked, best_of, candidates_of, sum_exactly


@dataclass(frozen=True, slots=True, eq=False)
class HostUser:
    """One user of a factored model, on the host.

    Attributes:
        rating: float32 [R]
        ranking: float32 [K]
        margin: Bound of the rounding error of his ranking scores in float32.
    """

    rating: NDArray[np.float32]
    ranking: NDArray[np.float32]
    margin: float


class HostHeads:
    """Both heads of a factored model over one catalogue on the CPU. Letters: P pairs, M movies, R and K dimensions."""

    def __init__(
        self, model: ServedModel[MovieEmbeddings, UserEmbeddings], rating: MovieMatrix, ranking: MovieMatrix
    ) -> None:
        """Takes views of the matrices, which must lie on the CPU."""
        self._model = model
        self._ranking = ranking
        self._rating_vectors, self._rating_biases = rating.vectors.numpy(), rating.biases.numpy()  # [M, R], [M]
        self._ranking_vectors, self._ranking_biases = ranking.vectors.numpy(), ranking.biases.numpy()  # [M, K], [M]

    def users_of(self, users: Sequence[UserEmbeddings], together: UserEmbeddings) -> list[HostUser]:
        """Returns users as views of what each holds.

        Args:
            users: Batches of one. [B]
            together: The same as one batch.
        """
        norms = np.linalg.norm(together.ranking_vectors.numpy().astype(np.float64), axis=-1)  # [B]
        margins = self._ranking.margin(norms).tolist()  # [B]
        return [
            HostUser(user.rating_vectors.numpy()[0], user.ranking_vectors.numpy()[0], margin)
            for user, margin in zip(users, margins, strict=True)
        ]

    def score_pairs(
        self, users: Sequence[HostUser], positions: NDArray[np.int64], numbers: NDArray[np.int64]
    ) -> NDArray[np.float32]:
        """Returns what ranks movie `numbers[p]` for user `positions[p]`. float32 [P]."""
        vectors = _of_pairs([user.ranking for user in users], positions)  # [P, K] or [K]
        return sum_exactly(vectors, self._ranking_vectors[numbers], self._ranking_biases[numbers])

    def rate_pairs(
        self, users: Sequence[HostUser], positions: NDArray[np.int64], numbers: NDArray[np.int64]
    ) -> NDArray[np.float32]:
        """Returns the rating of movie `numbers[p]` by user `positions[p]`, clipped to the scale. float32 [P]."""
        vectors = _of_pairs([user.rating for user in users], positions)  # [P, R] or [R]
        return stars(self._model, sum_exactly(vectors, self._rating_vectors[numbers], self._rating_biases[numbers]))

    def rank(self, user: HostUser, k: int, barred: NDArray[np.integer], seen: NDArray[np.integer]) -> Ranked:
        """Returns the k best movies, fewer if fewer may be recommended.

        Args:
            user: For whom.
            k: Movies wanted, at least 1.
            barred: Catalogue numbers that the list may not hold.
            seen: More of them.
        """
        scores = self._ranking_vectors @ user.ranking  # [M]
        scores += self._ranking_biases
        scores[barred] = -np.inf
        scores[seen] = -np.inf
        candidates = candidates_of(scores, user.margin, k)  # [C]
        return best_of(user.ranking, self._ranking_vectors, self._ranking_biases, candidates, k)


def _of_pairs(vectors: Sequence[NDArray[np.float32]], positions: NDArray[np.int64]) -> NDArray[np.float32]:
    """Returns the vector of each pair's user, [P, D], or of the one user whom all are about, [D]."""
    # As np.stack does, which takes four times as long.
    return vectors[0] if len(vectors) == 1 else np.concatenate(vectors).reshape(len(vectors), -1)[positions]
