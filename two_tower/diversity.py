"""Trades score for variety in a list of recommendations. Knows scores and vectors; knows no user and no catalogue.

Maximal marginal relevance: J. Carbonell and J. Goldstein, "The Use of MMR, Diversity-Based Reranking for Reordering
Documents and Producing Summaries", SIGIR 1998, equation 1, with lambda = 1 - diversity. Relevance is the score, moved
and scaled so that the pool spans 0 to 1; similarity is the cosine.
"""

import numpy as np
from numpy.typing import NDArray

POOL_PER_MOVIE = 10
"""Candidates for each movie wanted: how deep variety may reach; they set the scale of relevance too."""

MIN_POOL = 200
MAX_POOL = 1000
"""Bounds the work of a list at MAX_POOL cosines for each movie wanted."""


def pool_size(k: int) -> int:
    """Returns how many candidates a list of `k` movies is chosen from, at least `k` while that is at most MAX_POOL."""
    return min(max(POOL_PER_MOVIE * k, MIN_POOL), MAX_POOL)


def diversify(scores: NDArray[np.float32], vectors: NDArray[np.float32], k: int, diversity: float) -> NDArray[np.int64]:
    """Returns the positions of the movies taken, in the order in which they were.

    Equal movies stand as in the pool, so that the best movie always is the first.

    Args:
        scores: Of the pool, best first. [C]
        vectors: Of the pool, each of length 1, or 0 where nothing is known of the movie. [C, D]
        k: Movies wanted; fewer are taken if the pool has fewer.
        diversity: 0 leaves the order of the scores, 1 looks at similarity alone.
    """
    size = min(k, len(scores))
    if size == 0 or diversity == 0:
        return np.arange(size)
    spread = scores[0] - scores[-1]
    relevance = (scores - scores[-1]) / spread if spread > 0 else np.zeros(len(scores), np.float32)  # [C]
    nearest = np.zeros(len(scores), np.float32)  # [C], largest cosine with what was taken
    worth = ((1 - diversity) * relevance).astype(np.float32)  # [C]
    taken = np.empty(size, np.int64)
    is_left = np.ones(len(scores), np.bool_)
    for place in range(size):
        best = int(np.argmax(np.where(is_left, worth - np.float32(diversity) * nearest, -np.inf)))
        taken[place] = best
        is_left[best] = False
        cosines = vectors @ vectors[best]  # [C]
        nearest = cosines if place == 0 else np.maximum(nearest, cosines)
    return taken


def intra_list_similarity(vectors: NDArray[np.float32]) -> float:
    """Returns the mean cosine of all pairs of a list, NaN of a list without a pair.

    C.-N. Ziegler et al., "Improving Recommendation Lists Through Topic Diversification", WWW 2005, section 3.3, as a
    mean instead of a sum.

    Args:
        vectors: Each of length 1. [k, D]
    """
    size = len(vectors)
    if size < 2:
        return float("nan")
    cosines = vectors.astype(np.float64) @ vectors.T
    return float((cosines.sum() - np.trace(cosines)) / (size * (size - 1)))
