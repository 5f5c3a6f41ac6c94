"""Judges predictions. Knows arrays of ratings, of hits and of lists; knows no model, user or movie."""

import numpy as np
from numpy.typing import NDArray


def rmse(predicted: NDArray[np.floating], actual: NDArray[np.floating]) -> float:
    """Returns the root mean squared error (Herlocker et al. 2004, section 4.1.1), NaN of nothing."""
    if not len(actual):
        return float("nan")
    return float(np.sqrt(np.mean(np.square(predicted.astype(np.float64) - actual))))


def mse(predicted: NDArray[np.floating], actual: NDArray[np.floating]) -> float:
    """Returns the mean squared error, NaN of nothing."""
    if not len(actual):
        return float("nan")
    return float(np.mean(np.square(predicted.astype(np.float64) - actual)))


def mae(predicted: NDArray[np.floating], actual: NDArray[np.floating]) -> float:
    """Returns the mean absolute error (Herlocker et al. 2004, section 4.1.1), NaN of nothing."""
    if not len(actual):
        return float("nan")
    return float(np.mean(np.abs(predicted.astype(np.float64) - actual)))


def ndcg_at_k(hits: NDArray[np.bool_], num_relevant: NDArray[np.integer]) -> float:
    """Returns the mean of `ndcg_of_each`, NaN of nothing."""
    return _mean(ndcg_of_each(hits, num_relevant))


def ndcg_of_each(hits: NDArray[np.bool_], num_relevant: NDArray[np.integer]) -> NDArray[np.float64]:
    """Returns each user's normalised discounted cumulative gain (Järvelin & Kekäläinen 2002; binary gain). [B].

    Rank r, from 1, is discounted by log2(r + 1); the ideal list has min(k, num_relevant) hits at its head.

    Args:
        hits: Whether rank r of user b's list is relevant to him. bool [B, k]
        num_relevant: Relevant movies of each user, at least 1. int [B]
    """
    discounts = 1.0 / np.log2(np.arange(2, hits.shape[1] + 2))  # [k]
    ideal = np.concatenate(([0.0], np.cumsum(discounts)))[np.minimum(num_relevant, hits.shape[1])]  # [B]
    gains: NDArray[np.float64] = hits @ discounts / ideal
    return gains


def recall_at_k(hits: NDArray[np.bool_], num_relevant: NDArray[np.integer]) -> float:
    """Returns the mean of `recall_of_each`, NaN of nothing."""
    return _mean(recall_of_each(hits, num_relevant))


def recall_of_each(hits: NDArray[np.bool_], num_relevant: NDArray[np.integer]) -> NDArray[np.float64]:
    """Returns the share of his relevant movies in each user's list. [B].

    Out of min(k, num_relevant), so that 1 can be reached (Liang et al. 2018, section 4.2).

    Args:
        hits: Whether rank r of user b's list is relevant to him. bool [B, k]
        num_relevant: Relevant movies of each user, at least 1. int [B]
    """
    shares: NDArray[np.float64] = hits.sum(axis=1) / np.minimum(num_relevant, hits.shape[1])
    return shares


def mrr_at_k(hits: NDArray[np.bool_]) -> float:
    """Returns the mean of `reciprocal_rank_of_each`, NaN of nothing."""
    return _mean(reciprocal_rank_of_each(hits))


def reciprocal_rank_of_each(hits: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Returns 1 / rank, from 1, of each user's first relevant movie (Voorhees 1999), 0 where none is listed. [B].

    Args:
        hits: Whether rank r of user b's list is relevant to him. bool [B, k]
    """
    first = np.argmax(hits, axis=1)
    return np.where(hits.any(axis=1), 1.0 / (first + 1), 0.0)


def exposures(lists: NDArray[np.integer], num_movies: int) -> NDArray[np.int64]:
    """Returns how many lists hold each movie. [M].

    Args:
        lists: Catalogue numbers, padded with -1. int [B, k]
        num_movies: M, the length of the catalogue.
    """
    counts: NDArray[np.int64] = np.bincount(lists[lists >= 0], minlength=num_movies)
    return counts


def coverage(exposures_of_movies: NDArray[np.integer]) -> float:
    """Returns the share of movies that stand in any list (Ge et al. 2010, section 2.1), NaN of no movies."""
    if not len(exposures_of_movies):
        return float("nan")
    return float(np.mean(exposures_of_movies > 0))


def gini(exposures_of_movies: NDArray[np.integer]) -> float:
    """Returns how unevenly lists are shared out among all movies: 0 evenly, towards 1 all to one; NaN of no lists.

    The Gini coefficient of the Lorenz curve (Fleder & Hosanagar 2009, section 4.3), movies in no list included.
    """
    num_movies, total = len(exposures_of_movies), exposures_of_movies.sum()
    if not total:
        return float("nan")
    ascending = np.sort(exposures_of_movies).astype(np.float64)
    return float((2 * np.arange(1, num_movies + 1) - num_movies - 1) @ ascending / (num_movies * total))


def _mean(values: NDArray[np.float64]) -> float:
    return float(np.mean(values)) if len(values) else float("nan")
