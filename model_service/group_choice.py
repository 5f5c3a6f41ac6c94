"""Chooses the groups of movies that are worth a look for a user. Knows centroids and counts; knows no code and no list.

The scores of a group's movies lie around that of its centroid, about as a normal distribution: what a movie has beside
its centroid, times the user. So how many of the movies that may be answered reach a score can be told from how many of
them each group holds, and hence what the worst of the best k scores, and where these k movies are. A filter changes the
counts and nothing else: groups that it empties are passed over, and where it leaves little near the user more groups
are looked at, further away. That the best are so spread is a guess; how much of it must be covered is measured.
"""

from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

_SAMPLED_PER_GROUP = 16
"""Movies of each group, on average, of which the spread is learnt."""

_STEPS = 4
"""Of the secant method: the number of movies that reach the score found is then right to a twentieth, mostly better."""

_GATHERED_BELOW = 4
"""Of the groups, one in so many: copying a centroid takes as long as scoring some more of them."""

_LEAST = 1e-30
"""Stands for no movie, where a logarithm is taken."""


@dataclass(frozen=True, slots=True, eq=False)
class Groups:
    """Groups of movies. Letters: G groups, M movies, D coordinates, B users.

    Attributes:
        centroids: float32 [G, D]
        covariance: Of what movies have beside their centroids. float32 [D, D]
        widths: Of each group, how far its movies spread, to the mean of all. float32 [G]
        group_of: Of each movie. uint16 or int32 [M]
    """

    centroids: NDArray[np.float32]
    covariance: NDArray[np.float32]
    widths: NDArray[np.float32]
    group_of: NDArray[np.integer]

    @classmethod
    def measured(
        cls,
        vectors: NDArray[np.float32],
        centroids: NDArray[np.float32],
        group_of: NDArray[np.integer],
        rng: np.random.Generator,
    ) -> "Groups":
        """Learns how far movies lie from their centroids, of some of them."""
        num_movies, num_groups = len(vectors), len(centroids)
        some = np.sort(rng.choice(num_movies, min(num_movies, _SAMPLED_PER_GROUP * num_groups), replace=False))
        beside = vectors[some] - centroids[group_of[some]]  # [n, D]
        covariance = beside.T @ beside / len(some)  # [D, D]
        squares = np.einsum("nd,nd->n", beside, beside)
        sampled = np.bincount(group_of[some], minlength=num_groups)  # [G]
        mean = max(float(squares.mean()), _LEAST)
        # One more movie, of mean spread, in each group: few are no measure.
        widths = np.sqrt((np.bincount(group_of[some], squares, num_groups) + mean) / (sampled + 1) / mean)  # [G]
        return cls(centroids, covariance, np.maximum(widths, 0.1).astype(np.float32), group_of)

    @property
    def size_bytes(self) -> int:
        """What they take of memory."""
        return self.centroids.nbytes + self.covariance.nbytes + self.widths.nbytes + self.group_of.nbytes

    def counts(self, allowed: NDArray[np.bool_]) -> NDArray[np.int64]:
        """Returns how many movies of each group may be answered. [G]."""
        return np.bincount(self.group_of[allowed], minlength=len(self.centroids))

    def _scores(self, users: NDArray[np.float32], used: NDArray[np.int64]) -> NDArray[np.float32]:
        """Returns the scores of some centroids. [B, g]."""
        # A few are gathered; of most, what is gathered would cost more than the scores of the rest.
        if len(used) * _GATHERED_BELOW < len(self.centroids):
            return users @ self.centroids[used].T
        scores: NDArray[np.float32] = users @ self.centroids.T  # [B, G]
        return scores if len(used) == len(self.centroids) else scores[:, used]

    def choose(
        self, users: NDArray[np.float32], num_wanted: int, coverage: float, counts: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Returns for each user the groups that hold so much of the best movies, and the centroids' scores.

        Args:
            users: float32 [B, D]
            num_wanted: How many movies are the best.
            coverage: Share of them, as they are thought to lie, that the groups hold.
            counts: Movies of each group that may be answered. [G]

        Returns:
            Groups, -1 behind them, and scores, any behind them. int64 and float32 [B, P]
        """
        used = np.flatnonzero(counts)  # [g]
        if not len(used):
            return np.full((len(users), 1), -1, np.int64), np.zeros((len(users), 1), np.float32)
        scores = self._scores(users, used)  # [B, g]
        spreads = np.sqrt(np.maximum(np.einsum("bd,bd->b", users @ self.covariance, users), _LEAST))  # [B]
        held = torch.from_numpy(counts[used].astype(np.float32))  # [g]
        scales = torch.from_numpy(np.float32(0.5**0.5) / self.widths[used])  # [g]
        heights = torch.from_numpy(scores / spreads[:, None])  # [B, g]
        expected = _expected(heights, held, scales, num_wanted).numpy()  # [B, g]
        # Of values alone, for that is four times quicker than of places.
        ordered = np.sort(expected, axis=-1)[:, ::-1]
        held_by_first = np.cumsum(ordered, axis=-1)
        last = np.count_nonzero(held_by_first < coverage * held_by_first[:, -1:], axis=-1)  # [B]
        lowest = ordered[np.arange(len(users)), np.minimum(last, len(used) - 1)]  # [B]
        chosen = expected >= lowest[:, None]  # [B, g]
        rows, places = np.nonzero(chosen)
        lengths = np.count_nonzero(chosen, axis=-1)  # [B]
        within = np.arange(len(rows)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        groups = np.full((len(users), lengths.max(initial=0)), -1, np.int64)  # [B, P]
        groups[rows, within] = used[places]
        # faiss rounds scores to steps of the largest difference within a row: what is not looked at must not widen it.
        found = np.repeat(scores.max(axis=-1, initial=0)[:, None], groups.shape[-1], axis=-1)  # [B, P]
        found[rows, within] = scores[rows, places]
        return groups, found


def _expected(heights: Tensor, held: Tensor, scales: Tensor, num_wanted: int) -> Tensor:
    """Returns how many of the best movies each group is thought to hold; all of them hold `num_wanted`.

    The score that so many reach is found by the secant method on the logarithm of the number. That is concave, so from
    two scores that too few reach it comes nearer from that side and never beyond.

    Args:
        heights: Score of each centroid, of the spread. float32 [B, g]
        held: Movies in each group. float32 [g]
        scales: By which heights become arguments of erfc. float32 [g]
        num_wanted: As it is.
    """
    num_movies = float(held.sum())
    wanted = min(float(num_wanted), 0.5 * num_movies)
    offsets = heights * scales  # [B, g]
    # If all were where the highest is, so many would reach this score.
    further = NormalDist().inv_cdf(1 - wanted / num_movies)
    now = heights.amax(dim=-1) + further / (float(scales.min()) * 2**0.5)  # [B]
    before, beyond = now + 0.5, None
    goal = float(np.log(2 * wanted))
    for _ in range(_STEPS):
        # Half of erfc(z / sqrt 2) is the tail of the normal distribution.
        lacking = (_tails(now, offsets, scales) @ held).clamp_(min=_LEAST).log_().sub_(goal)  # [B]
        if beyond is None:
            beyond = (_tails(before, offsets, scales) @ held).clamp_(min=_LEAST).log_().sub_(goal)  # [B]
        step = lacking * (before - now) / (lacking - beyond).clamp_(min=1e-3)
        before, beyond, now = now, lacking, now + step
    return _tails(now, offsets, scales) * (held / 2)


def _tails(score: Tensor, offsets: Tensor, scales: Tensor) -> Tensor:
    """Returns erfc of how far a score of each user lies above each centroid's, of the spread. [B, g]."""
    return torch.outer(score, scales).sub_(offsets).erfc_()
