"""Turns embeddings into ratings and ranking scores. Knows dot products, link and scale; no user, movie or file."""

import numpy as np
import torch
from numpy.typing import NDArray

from two_tower.serving import FactoredModel, MovieEmbeddings, UserEmbeddings


def rate_all(model: FactoredModel, users: UserEmbeddings, movies: MovieEmbeddings) -> NDArray[np.float32]:
    """Returns the rating of every movie by every user, clipped to the scale. float32 [B, M]."""
    raw = users.rating_vectors @ movies.rating_vectors.T + movies.rating_biases  # [B, M]
    return _stars(model, raw)


def rate_pairs(
    model: FactoredModel,
    users: UserEmbeddings,
    movies: MovieEmbeddings,
    user_positions: NDArray[np.integer],
    movie_numbers: NDArray[np.integer],
) -> NDArray[np.float32]:
    """Returns the rating of pair p, user `user_positions[p]` of the batch and movie `movie_numbers[p]`. float32 [P]."""
    device = users.rating_vectors.device
    user_index = torch.as_tensor(user_positions, dtype=torch.int64, device=device)  # [P]
    movie_index = torch.as_tensor(movie_numbers, dtype=torch.int64, device=device)  # [P]
    dots = (users.rating_vectors[user_index] * movies.rating_vectors[movie_index]).sum(dim=-1)  # [P]
    return _stars(model, dots + movies.rating_biases[movie_index])


def rank_scores(users: UserEmbeddings, movies: MovieEmbeddings) -> torch.Tensor:
    """Returns the score that orders a top-k list, for every movie and user, on the model's device. float32 [B, M]."""
    return users.ranking_vectors @ movies.ranking_vectors.T + movies.ranking_biases


def _stars(model: FactoredModel, raw: torch.Tensor) -> NDArray[np.float32]:
    ratings = model.link(raw.cpu().numpy())
    scale = model.rating_scale
    return ratings if scale is None else scale.clip(ratings)
