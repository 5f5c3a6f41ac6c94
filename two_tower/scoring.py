"""Turns embeddings of either form into ratings and ranking scores. Knows link and scale; no user, movie or file."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from two_tower.serving import Model, PairwiseModel


def rate_all(model: Model, users: Any, movies: Any) -> NDArray[np.float32]:
    """Returns the rating of every movie by every user, clipped to the scale. float32 [B, M].

    Args:
        model: The model.
        users: What its `embed_users` gave.
        movies: What its `embed_movies` gave.
    """
    if isinstance(model, PairwiseModel):
        return stars(model, model.raw_ratings_of_all(users.inputs, movies.inputs).cpu().numpy())
    raw: Tensor = users.rating_vectors @ movies.rating_vectors.T + movies.rating_biases  # [B, M]
    return stars(model, raw.cpu().numpy())


def rate_pairs(
    model: Model,
    users: Any,
    movies: Any,
    user_positions: NDArray[np.integer],
    movie_numbers: NDArray[np.integer],
) -> NDArray[np.float32]:
    """Returns the rating of pair p, user `user_positions[p]` of the batch and movie `movie_numbers[p]`. float32 [P]."""
    return stars(model, raw_pairs(model, users, movies, user_positions, movie_numbers).cpu().numpy())


def raw_pairs(
    model: Model,
    users: Any,
    movies: Any,
    user_positions: NDArray[np.integer],
    movie_numbers: NDArray[np.integer],
) -> Tensor:
    """Returns what `rate_pairs` returns before link and clipping, on the model's device. float32 [P]."""
    user_index = torch.as_tensor(user_positions, dtype=torch.int64, device=model.device)  # [P]
    movie_index = torch.as_tensor(movie_numbers, dtype=torch.int64, device=model.device)  # [P]
    if isinstance(model, PairwiseModel):
        return model.raw_ratings_of_pairs(users.inputs[user_index], movies.inputs[movie_index])
    dots = (users.rating_vectors[user_index] * movies.rating_vectors[movie_index]).sum(dim=-1)  # [P]
    raw: Tensor = dots + movies.rating_biases[movie_index]
    return raw


def rank_scores(model: Model, users: Any, movies: Any) -> Tensor:
    """Returns the score that orders a top-k list, for every movie and user, on the model's device. float32 [B, M]."""
    if isinstance(model, PairwiseModel):
        return model.ranking_scores_of_all(users.inputs, movies.inputs)
    scores: Tensor = users.ranking_vectors @ movies.ranking_vectors.T + movies.ranking_biases
    return scores


def stars(model: Model, raw: NDArray[np.float32]) -> NDArray[np.float32]:
    """Returns raw ratings as stars, clipped to the scale."""
    ratings = model.link(raw)
    scale = model.rating_scale
    return ratings if scale is None else scale.clip(ratings)
