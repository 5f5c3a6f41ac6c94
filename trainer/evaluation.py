"""Asks a model about rows that it was not trained on, as the services would. Knows no model by name.

Ratings: every held-out pair, clipped to the scale. Ranking: for every user with held-out rows the full catalogue
without the movies of his training rows; every held-out movie is relevant, whatever its rating.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from trainer.dataset import Dataset, Interactions
from trainer.histories import HISTORY_WINDOW, HistoryLayout
from trainer.metrics import mae, ndcg_at_k, recall_at_k, rmse
from trainer.ranking import best_movies
from trainer.readers.mapped_columns import are_mapped, rows_of_users
from two_tower.answer_source import are_popular, sources_of
from two_tower.manifest import Metrics
from two_tower.scoring import rank_scores, raw_pairs
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
        unclipped: What `predicted` was before it was clipped to the scale. float32 [n]
        deviations: The model's own standard deviation of each row's rating, NaN where it cannot tell. float32 [n]
        num_known: Ratings of the user that the answer rests on, for each row. int64 [n]
    """

    metrics: Metrics
    held_out: Interactions
    predicted: NDArray[np.float32]
    users: NDArray[np.int32]
    lists: NDArray[np.int64]
    unclipped: NDArray[np.float32]
    deviations: NDArray[np.float32]
    num_known: NDArray[np.int64]

    def relevance(self, ranks: int = RANKS) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
        """Returns which of the first `ranks` places hold a held-out movie, bool [B, ranks], and how many there are."""
        return relevance(self.held_out, self.users, self.lists[:, :ranks])


def evaluate(
    model: Model,
    data: Dataset,
    train: Interactions,
    held_out: Interactions,
    *,
    protocol: str,
    window: int = HISTORY_WINDOW,
    ranks: int = RANKS,
    popularity: NDArray[np.float32] | None = None,
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
        popularity: What ranks for users of whom nothing is known; None where the model does it. [M]
        progress: Told after each batch of users.

    Raises:
        ValueError: The lists are too short for the metrics.
    """
    if ranks < RANKS:
        raise ValueError(f"ranks is {ranks}; at least {RANKS} are needed for the metrics")
    users, place_of_row = np.unique(held_out.user_rows, return_inverse=True)
    # What lies on disk is not to be sorted whole.
    histories = rows_of_users(train, users, len(data.user_ids)) if are_mapped(train) else train
    layout = HistoryLayout(histories, len(data.user_ids), window)
    movies = model.embed_movies(data.movies)
    by_user = np.argsort(place_of_row, kind="stable")
    ends = np.cumsum(np.bincount(place_of_row, minlength=len(users)))
    unclipped = np.full(len(held_out), np.nan, np.float32)
    deviations = np.full(len(held_out), np.nan, np.float32)
    num_known = np.zeros(len(held_out), np.int64)
    lists = np.full((len(users), ranks), -1, np.int64)
    at_once = max(1, min(_MAX_USERS_AT_ONCE, _SCORES_AT_ONCE // max(1, len(movies))))
    for start in range(0, len(users), at_once):
        stop = min(start + at_once, len(users))
        rows = by_user[ends[start - 1] if start else 0 : ends[stop - 1]]
        columns = user_columns(data, layout, users[start:stop])
        embeddings = model.embed_users(columns, movies)
        positions, numbers = place_of_row[rows] - start, held_out.movie_rows[rows]
        if model.rating_scale is not None:
            unclipped[rows] = model.link(raw_pairs(model, embeddings, movies, positions, numbers).cpu().numpy())
            told = model.rating_deviations(columns, movies, positions.astype(np.int64), numbers.astype(np.int64))
            deviations[rows] = np.nan if told is None else told
        num_known[rows] = model.count_ratings(columns)[positions]
        scores = rank_scores(model, embeddings, movies)  # [B, M]
        if popularity is not None:
            popular = torch.from_numpy(are_popular(sources_of(model, columns)))
            scores[popular.to(scores.device)] = torch.from_numpy(popularity).to(scores)
        lists[start:stop] = _best_unseen(data, layout, scores, users[start:stop], ranks)
        if progress is not None:
            progress(stop, len(users), "evaluating")
    predicted = unclipped if model.rating_scale is None else model.rating_scale.clip(unclipped)
    metrics = _judge(held_out, users, predicted, lists[:, :RANKS], protocol)
    return Evaluation(metrics, held_out, predicted, users, lists, unclipped, deviations, num_known)


def user_columns(data: Dataset, layout: HistoryLayout, users: NDArray[np.integer]) -> UserColumns:
    """Returns users, named by user row, as a user tower sees them."""
    profiles = Profiles(
        [data.profiles.genders[row] for row in users],
        data.profiles.ages[users],
        [data.profiles.occupations[row] for row in users],
    )
    return UserColumns([data.user_ids[row] for row in users], profiles, layout.stored(users))


def relevance(
    held_out: Interactions, users: NDArray[np.integer], lists: NDArray[np.integer]
) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
    """Tells which places of the lists hold a held-out movie of their user.

    Args:
        held_out: Rows of these users and no others.
        users: The users, ascending. [B]
        lists: Catalogue numbers, padded with -1. [B, k]

    Returns:
        A mark for each place, bool [B, k], and the number of held-out movies of each user, int64 [B].
    """
    place_of_row = np.searchsorted(users, held_out.user_rows)
    num_relevant = np.bincount(place_of_row, minlength=len(lists))  # [B]
    width = int(max(held_out.movie_rows.max(initial=0), lists.max(initial=0))) + 1
    pairs = place_of_row.astype(np.int64) * width + held_out.movie_rows
    listed = np.arange(len(lists))[:, None] * width + lists  # [B, k]
    hits: NDArray[np.bool_] = np.isin(listed, pairs) & (lists >= 0)  # [B, k]
    return hits, num_relevant


def _best_unseen(
    data: Dataset, layout: HistoryLayout, scores: torch.Tensor, users: NDArray[np.int32], ranks: int
) -> NDArray[np.int64]:
    seen_users, seen_movies = layout.seen(users)
    device = scores.device
    scores[torch.as_tensor(seen_users, device=device), torch.as_tensor(seen_movies, device=device)] = -torch.inf
    if data.movies.available is not None:
        scores[:, torch.as_tensor(~data.movies.available, device=device)] = -torch.inf
    return best_movies(scores, ranks)


def _judge(
    held_out: Interactions,
    users: NDArray[np.int32],
    predicted: NDArray[np.float32],
    lists: NDArray[np.int64],
    protocol: str,
) -> Metrics:
    rated = ~np.isnan(held_out.ratings) & ~np.isnan(predicted)
    hits, num_relevant = relevance(held_out, users, lists)
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
