"""Rates pairs and ranks by numpy on the host, exactly as a batch does, without what a batch costs.

Most of what a batch takes where the users' vectors are at hand is the care of a batch: rows, masks by row, tensors that
are taken apart and joined. It costs several times what the products cost. Knows vectors; no stored user and no RPC.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from two_tower.scoring import stars
from two_tower.serving import MovieEmbeddings, ServedModel, UserEmbeddings
from two_tower.top_k import MovieMatrix, Ranked, best_of, candidates_of, sum_exactly

_FLOATS_AT_ONCE = 1 << 17
"""Of movie vectors that are gathered and summed at once, in float64 1 MiB: what is read again lies in the cache then.
4,096 pairs at 256 coordinates take a fifth of the time."""


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
        # Then one sum is both.
        self._ranks_by_ratings = rating.vectors is ranking.vectors and rating.biases is ranking.biases

    def users_of(self, users: Sequence[UserEmbeddings], together: UserEmbeddings) -> list[HostUser]:
        """Returns users as views of what each holds.

        Args:
            users: Batches of one. [B]
            together: The same as one batch.
        """
        norms = np.linalg.norm(together.ranking_vectors.numpy().astype(np.float64), axis=-1)  # [B]
        margins = self._ranking.margin(norms).tolist()  # [B]
        ranking = [user.ranking_vectors.numpy()[0] for user in users]
        is_one = together.rating_vectors is together.ranking_vectors
        rating = ranking if is_one else [user.rating_vectors.numpy()[0] for user in users]
        return list(map(HostUser, rating, ranking, margins))

    def rate_and_score(
        self, users: Sequence[HostUser], positions: NDArray[np.int64], numbers: NDArray[np.int64]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Returns the rating of movie `numbers[p]` by user `positions[p]`, and what ranks it. Twice float32 [P].

        Ratings are clipped to the scale.
        """
        ranking = [user.ranking for user in users]
        scores = _sums(ranking, positions, self._ranking_vectors, self._ranking_biases, numbers)
        return self._stars(users, positions, numbers, scores), scores

    def rate_ranked(self, user: HostUser, ranked: Ranked) -> NDArray[np.float32]:
        """Returns the ratings of movies that were ranked for a user, clipped to the scale. float32 [k]."""
        return self._stars([user], np.zeros_like(ranked.numbers), ranked.numbers, ranked.scores)

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

    def rank_all(
        self, users: Sequence[HostUser], ks: Sequence[int], excluded: Sequence[Sequence[NDArray[np.integer]]]
    ) -> list[tuple[Ranked, NDArray[np.float32] | None]]:
        """Returns for each user what `rank` does, and the ratings of these movies; None from a model without a scale.

        Args:
            users: For whom, at least one. [B]
            ks: Movies wanted of each, at least 1. [B]
            excluded: Catalogue numbers that each list may not hold, in any number of arrays. [B]
        """
        ranking = [user.ranking for user in users]
        scores = np.concatenate(ranking).reshape(len(users), -1) @ self._ranking_vectors.T  # [B, M]
        scores += self._ranking_biases
        candidates = []
        for mine, user, k, arrays in zip(scores, users, ks, excluded, strict=True):
            for barred in arrays:
                mine[barred] = -np.inf
            candidates.append(candidates_of(mine, user.margin, k))
        rows = np.repeat(np.arange(len(users)), [len(each) for each in candidates])  # [C]
        numbers = np.concatenate(candidates)  # [C], ascending within a row
        exact = _sums(ranking, rows, self._ranking_vectors, self._ranking_biases, numbers)  # [C]
        # It is stable: of equal scores the lower number stands first.
        order = np.lexsort((-exact, rows))  # [C]
        ends = np.cumsum([len(each) for each in candidates]).tolist()
        starts = [0, *ends[:-1]]
        best = [order[start : min(start + k, end)] for start, end, k in zip(starts, ends, ks, strict=True)]
        kept = np.concatenate(best)  # [sum of k]
        numbers, exact = numbers[kept], exact[kept]
        rates = self._model.rating_scale is not None
        ratings = self._stars(users, rows[kept], numbers, exact) if rates else None
        bounds = np.cumsum([0, *map(len, best)]).tolist()
        return [
            (Ranked(numbers[start:end], exact[start:end]), None if ratings is None else ratings[start:end])
            for start, end in pairwise(bounds)
        ]

    def _stars(
        self,
        users: Sequence[HostUser],
        positions: NDArray[np.int64],
        numbers: NDArray[np.int64],
        scores: NDArray[np.float32],
    ) -> NDArray[np.float32]:
        """Returns the ratings of pairs whose scores are known. float32 [P]."""
        if self._ranks_by_ratings and all(user.rating is user.ranking for user in users):
            return stars(self._model, scores)
        rating = [user.rating for user in users]
        raw = _sums(rating, positions, self._rating_vectors, self._rating_biases, numbers)
        return stars(self._model, raw)


def _sums(
    users: Sequence[NDArray[np.float32]],
    positions: NDArray[np.int64],
    vectors: NDArray[np.float32],
    biases: NDArray[np.float32],
    numbers: NDArray[np.int64],
) -> NDArray[np.float32]:
    """Returns the exact sums of pairs: of user `positions[p]`, [D], and movie `numbers[p]`. float32 [P]."""
    # As np.stack does, which takes four times as long.
    rows = users[0] if len(users) == 1 else np.concatenate(users).reshape(len(users), -1)  # [D] or [B, D]
    step = max(1, _FLOATS_AT_ONCE // max(1, vectors.shape[-1]))
    if len(numbers) <= step:
        return sum_exactly(_of_pairs(rows, positions), vectors.take(numbers, axis=0), biases[numbers])
    sums = np.empty(len(numbers), np.float32)  # [P]
    for start in range(0, len(numbers), step):
        some, theirs = slice(start, start + step), numbers[start : start + step]
        sums[some] = sum_exactly(_of_pairs(rows, positions[some]), vectors.take(theirs, axis=0), biases[theirs])
    return sums


def _of_pairs(rows: NDArray[np.float32], positions: NDArray[np.int64]) -> NDArray[np.float32]:
    """Returns the vector of each pair's user, [P, D], or of the one user whom all are about, [D]."""
    return rows if rows.ndim == 1 else rows.take(positions, axis=0)
