"""Finds the best movies exactly: ties go to the smaller catalogue number. Knows scores; knows no user and no model."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def best_movies(scores: Tensor, k: int) -> NDArray[np.int64]:
    """Returns the catalogue numbers of the k best movies of each user, best first, padded with -1. int64 [B, k].

    Args:
        scores: What ranks; -inf for a movie that must not be listed. float32 [B, M]
        k: Length of the lists.
    """
    num_users, num_movies = scores.shape
    lists = np.full((num_users, k), -1, np.int64)
    if not num_users or not num_movies:
        return lists
    # topk alone picks any of those that tie for the last place.
    last = torch.topk(scores, min(k, num_movies), dim=-1).values[:, -1:]  # [B, 1]
    places = torch.nonzero((scores >= last) & (scores > -torch.inf))  # [c, 2]
    found = scores[places[:, 0], places[:, 1]].cpu().numpy()
    users, movies = places.cpu().numpy().T
    order = np.lexsort((movies, -found, users))
    users, movies = users[order], movies[order]
    starts = np.searchsorted(users, np.arange(num_users))
    ranks = np.arange(len(users)) - starts[users]
    kept = ranks < k
    lists[users[kept], ranks[kept]] = movies[kept]
    return lists
