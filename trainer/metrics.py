"""Judges predictions. Knows arrays of ratings and of hits; knows no model, user or movie."""

import numpy as np
from numpy.typing import NDArray


def rmse(predicted: NDArray[np.floating], actual: NDArray[np.floating]) -> float:
    """Returns the root mean squared error (Herlocker et al. 2004, section 4.1.1), NaN of nothing."""
    if not len(actual):
        return float("nan")
    return float(np.sqrt(np.mean(np.square(predicted.astype(np.float64) - actual))))


def mae(predicted: NDArray[np.floating], actual: NDArray[np.floating]) -> float:
    """Returns the mean absolute error (Herlocker et al. 2004, section 4.1.1), NaN of nothing."""
    if not len(actual):
        return float("nan")
    return float(np.mean(np.abs(predicted.astype(np.float64) - actual)))


def ndcg_at_k(hits: NDArray[np.bool_], num_relevant: NDArray[np.integer]) -> float:
    """Returns the normalised discounted cumulative gain, mean over users (Järvelin & Kekäläinen 2002; binary gain).

    Rank r, from 1, is discounted by log2(r + 1); the ideal list has min(k, num_relevant) hits at its head.

    Args:
        hits: Whether rank r of user b's list is relevant to him. bool [B, k]
        num_relevant: Relevant movies of each user, at least 1. int [B]
    """
    if not len(hits):
        return float("nan")
    discounts = 1.0 / np.log2(np.arange(2, hits.shape[1] + 2))  # [k]
    ideal = np.concatenate(([0.0], np.cumsum(discounts)))[np.minimum(num_relevant, hits.shape[1])]  # [B]
    return float(np.mean(hits @ discounts / ideal))


def recall_at_k(hits: NDArray[np.bool_], num_relevant: NDArray[np.integer]) -> float:
    """Returns the share of relevant movies in the lists, mean over users.

    Out of min(k, num_relevant), so that 1 can be reached (Liang et al. 2018, section 4.2).

    Args:
        hits: Whether rank r of user b's list is relevant to him. bool [B, k]
        num_relevant: Relevant movies of each user, at least 1. int [B]
    """
    if not len(hits):
        return float("nan")
    return float(np.mean(hits.sum(axis=1) / np.minimum(num_relevant, hits.shape[1])))
