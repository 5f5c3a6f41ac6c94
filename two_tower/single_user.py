"""Rates and ranks for one user by numpy, exactly as a batch does, without what a batch costs. Knows no stored user.

Most of what a batch of one takes is the care of a batch: rows, positions, masks by row, tensors taken apart and joined.
For a single user whose vectors are at hand it costs several times what the products cost.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from two_tower.scoring import stars
from two_tower.serving import MovieEmbeddings, ServedModel, UserEmbeddings
from two_tower.top_k import MovieMatrix, Ranked, best_of, sum_exactly


@dataclass(frozen=True, slots=True, eq=False)
class UserVectors:
    """One user of a factored model, on the host.

    Attributes:
        rating: float32 [R]
        ranking: float32 [K]
        margin: Bound of the rounding error of his ranking scores in float32.
    """

    rating: NDArray[np.float32]
    ranking: NDArray[np.float32]
    margin: float


class SingleUser:
    """Both heads of a factored model over one catalogue on the CPU. Letters: M movies, R and K dimensions."""

    def __init__(
        self, model: ServedModel[MovieEmbeddings, UserEmbeddings], rating: MovieMatrix, ranking: MovieMatrix
    ) -> None:
        """Takes views of the matrices, which must lie on the CPU."""
        self._model = model
        self._ranking = ranking
        self._rating_vectors, self._rating_biases = rating.vectors.numpy(), rating.biases.numpy()  # [M, R], [M]
        self._ranking_vectors, self._ranking_biases = ranking.vectors.numpy(), ranking.biases.numpy()  # [M, K], [M]

    def vectors_of(self, user: UserEmbeddings) -> UserVectors:
        """Returns a batch of one as views of what it holds."""
        ranking = user.ranking_vectors.numpy()  # [1, K]
        margin = self._ranking.margin(np.linalg.norm(ranking.astype(np.float64), axis=-1))  # [1]
        return UserVectors(user.rating_vectors.numpy()[0], ranking[0], float(margin[0]))

    def score(self, user: UserVectors, number: int) -> NDArray[np.float32]:
        """Returns what ranks a movie. float32 [1]."""
        some = slice(number, number + 1)
        return sum_exactly(user.ranking, self._ranking_vectors[some], self._ranking_biases[some])

    def rate(self, user: UserVectors, numbers: NDArray[np.int64] | slice) -> NDArray[np.float32]:
        """Returns the ratings of movies, clipped to the scale. float32 [P]."""
        return stars(self._model, sum_exactly(user.rating, self._rating_vectors[numbers], self._rating_biases[numbers]))

    def rank(self, user: UserVectors, k: int, barred: NDArray[np.integer], seen: NDArray[np.integer]) -> Ranked:
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
        kth = np.partition(scores, -k)[-k] if k < len(scores) else -np.inf
        candidates = np.flatnonzero(scores >= kth - user.margin if kth > -np.inf else scores > kth)  # [C]
        return best_of(user.ranking, self._ranking_vectors, self._ranking_biases, candidates, k)
