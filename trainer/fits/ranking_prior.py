"""Fits what ranks for a user of whom little is known: popularity, and what differs with gender, age and occupation.

Knows who watched what and the movie side of a head; knows no order and no rating.
"""

from dataclasses import dataclass

import numpy as np
import scipy.sparse
from numpy.typing import NDArray

_PROFILE_RIDGE = 10.0
"""λ on the share of watchers by profile: 10 beats 50 by .002 to .005 (docs/experiments.md, 2026-11-22)."""

_VECTOR_RIDGE = 0.1
"""λ of the projection as a share of a coordinate's mean variance; .01 is .005 worse with profiles, same place."""

_RARE_SHARE = 0.02
"""Added to shares before the logarithm, which rare movies would dominate otherwise; .005 is .008 worse, same place."""


@dataclass(frozen=True, slots=True)
class RankingPrior:
    """User vectors to be added while a history is short.

    Attributes:
        of_everybody: float32 [K]
        from_profile: What each row of profiles adds to it; row 0, the unknown, is zeros. float32 [P, K]
    """

    of_everybody: NDArray[np.float32]
    from_profile: NDArray[np.float32]


def fit_ranking_prior(
    user_rows: NDArray[np.int32],
    movie_rows: NDArray[np.int32],
    profiles: NDArray[np.int64],
    num_profile_rows: int,
    vectors: NDArray[np.float32],
    start: NDArray[np.floating],
) -> RankingPrior:
    """Finds the vectors whose scores come nearest to the log of the share of watchers, movies weighed by that share.

    Shares by profile are a ridge from the profile's rows to who watched what: so age is not counted twice where
    occupation tells it.

    Args:
        user_rows: [n]
        movie_rows: [n]
        profiles: Rows of each user's profile, 0 for the unknown. [U, 3]
        num_profile_rows: P.
        vectors: Movie side. [I, K]
        start: Score of every movie for a user without history before this is added. [I]
    """
    num_users, num_movies = len(profiles), len(vectors)
    watched = scipy.sparse.csr_matrix((np.ones(len(user_rows)), (user_rows, movie_rows)), shape=(num_users, num_movies))
    stated = np.zeros((num_users, num_profile_rows))
    np.put_along_axis(stated, profiles, 1.0, axis=1)
    stated[:, 0] = 0.0
    shares = np.asarray(watched.sum(axis=0)).ravel() / num_users  # [I]
    moments = (watched.T @ stated).T - stated.sum(axis=0)[:, None] * shares  # [P, I]
    by_profile = np.linalg.solve(stated.T @ stated + _PROFILE_RIDGE * np.eye(num_profile_rows), moments)
    base = np.log(shares + _RARE_SHARE)
    lifts = np.log(np.maximum(shares + by_profile, 0) + _RARE_SHARE) - base  # [P, I]
    targets = np.concatenate([[base - start], lifts])  # [1 + P, I]
    weights = shares / shares.sum()
    # A constant over all movies orders nothing: neither targets nor vectors are asked for it.
    targets -= (targets @ weights)[:, None]
    centred = vectors - weights @ vectors  # [I, K]
    weighted = centred * weights[:, None]
    gram = weighted.T @ centred
    size = len(gram)
    penalty = max(_VECTOR_RIDGE * float(np.trace(gram)) / size, 1e-12)
    solved = np.linalg.solve(gram + penalty * np.eye(size), weighted.T @ targets.T).T  # [1 + P, K]
    solved[1] = 0.0
    return RankingPrior(solved[0].astype(np.float32), solved[1:].astype(np.float32))
