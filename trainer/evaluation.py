"""Asks a model about rows that it was not trained on, as the services would. Knows no model by name.

Ratings: every held-out pair, clipped to the scale. Ranking: for every user with held-out rows the full catalogue
without the movies of his training rows; every held-out movie is relevant, whatever its rating.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from trainer.dataset import Dataset, Interactions
from trainer.histories import HISTORY_WINDOW, HistoryLayout
from trainer.metrics import mae, ndcg_at_k, recall_at_k, rmse
from trainer.ranking import best_movies
from two_tower.manifest import Metrics
from two_tower.scoring import rank_scores, rate_pairs
from two_tower.serving import Model
from two_tower.user_columns import Profiles, UserColumns

RANKS = 10
"""Length of the lists that the metrics look at: NDCG@10 and Recall@10."""

_SCORES_AT_ONCE = 16 << 20
"""Scores held at once: 64 MiB of float32."""

_MAX_USERS_AT_ONCE = 1024


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What a model said of held-out rows.

    Attributes:
        metrics: How well it did.
        held_out: The rows.
        predicted: The clipped rating of each held-out row, NaN where the data has no ratings. float32 [n]
        users: Users with held-out rows, by user row. int32 [B]
        lists: Their best movies, best first, by catalogue number, padded with -1. int64 [B, k]
    """

    metrics: Metrics
    held_out: Interactions
    predicted: NDArray[np.float32]
    users: NDArray[np.int32]
    lists: NDArray[np.int64]


def evaluate(
    model: Model,
    data: Dataset,
    train: Interactions,
    held_out: Interactions,
    *,
    protocol: str,
    window: int = HISTORY_WINDOW,
    ranks: int = RANKS,
    progress: Callable[[int, int, str], None] | None = None,
) -> Evaluation:
    """Rates the held-out pairs and ranks the catalogue for their users.

    Args:
        model: The model.
        data: Users and movies; its interactions are not looked at.
        train: The rows that stand in the users' histories.
        held_out: The rows to be judged on.
        protocol: How they were held out; goes into the metrics.
        window: Events of a user that the feature store keeps.
        ranks: Length of the lists; metrics are of the first `RANKS`, so at least that.
        progress: Told after each batch of users.

    Raises:
        ValueError: The lists are too short for the metrics.
    """
    if ranks < RANKS:
        raise ValueError(f"ranks is {ranks}; at least {RANKS} are needed for the metrics")
    layout = HistoryLayout(train, len(data.user_ids), window)
    movies = model.embed_movies(data.movies)
    users, place_of_row = np.unique(held_out.user_rows, return_inverse=True)
    by_user = np.argsort(place_of_row, kind="stable")
    ends = np.cumsum(np.bincount(place_of_row, minlength=len(users)))
    predicted = np.full(len(held_out), np.nan, np.float32)
    lists = np.full((len(users), ranks), -1, np.int64)
    at_once = max(1, min(_MAX_USERS_AT_ONCE, _SCORES_AT_ONCE // max(1, len(movies))))
    for start in range(0, len(users), at_once):
        stop = min(start + at_once, len(users))
        rows = by_user[ends[start - 1] if start else 0 : ends[stop - 1]]
        predicted[rows], lists[start:stop] = _answer(
            model, data, layout, movies, users[start:stop], place_of_row[rows] - start, held_out.movie_rows[rows], ranks
        )
        if progress is not None:
            progress(stop, len(users), "evaluating")
    metrics = _judge(held_out, place_of_row, predicted, lists[:, :RANKS], protocol)
    return Evaluation(metrics, held_out, predicted, users, lists)


def user_columns(data: Dataset, layout: HistoryLayout, users: NDArray[np.integer]) -> UserColumns:
    """Returns users, named by user row, as a user tower sees them."""
    profiles = Profiles(
        [data.profiles.genders[row] for row in users],
        data.profiles.ages[users],
        [data.profiles.occupations[row] for row in users],
    )
    return UserColumns([data.user_ids[row] for row in users], profiles, layout.stored(users))


def _answer(
    model: Model,
    data: Dataset,
    layout: HistoryLayout,
    movies: Any,
    users: NDArray[np.int32],
    pair_users: NDArray[np.integer],
    pair_movies: NDArray[np.int32],
    ranks: int,
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    embeddings = model.embed_users(user_columns(data, layout, users), movies)
    if model.rating_scale is None:
        ratings = np.full(len(pair_users), np.nan, np.float32)
    else:
        ratings = rate_pairs(model, embeddings, movies, pair_users, pair_movies)
    scores = rank_scores(model, embeddings, movies)  # [B, M]
    seen_users, seen_movies = layout.seen(users)
    device = scores.device
    scores[torch.as_tensor(seen_users, device=device), torch.as_tensor(seen_movies, device=device)] = -torch.inf
    if data.movies.available is not None:
        scores[:, torch.as_tensor(~data.movies.available, device=device)] = -torch.inf
    return ratings, best_movies(scores, ranks)


def _judge(
    held_out: Interactions,
    place_of_row: NDArray[np.integer],
    predicted: NDArray[np.float32],
    lists: NDArray[np.int64],
    protocol: str,
) -> Metrics:
    rated = ~np.isnan(held_out.ratings) & ~np.isnan(predicted)
    num_relevant = np.bincount(place_of_row, minlength=len(lists))  # [B]
    width = int(max(held_out.movie_rows.max(initial=0), lists.max(initial=0))) + 1
    pairs = place_of_row.astype(np.int64) * width + held_out.movie_rows
    listed = np.arange(len(lists))[:, None] * width + lists  # [B, k]
    hits = np.isin(listed, pairs) & (lists >= 0)  # [B, k]
    return Metrics(
        rmse=_known(rmse(predicted[rated], held_out.ratings[rated])),
        mae=_known(mae(predicted[rated], held_out.ratings[rated])),
        ndcg_at_10=_known(ndcg_at_k(hits, num_relevant)),
        recall_at_10=_known(recall_at_k(hits, num_relevant)),
        protocol=protocol,
        num_ratings=int(rated.sum()),
        num_users=len(lists),
    )


def _known(value: float) -> float | None:
    return None if np.isnan(value) else value
