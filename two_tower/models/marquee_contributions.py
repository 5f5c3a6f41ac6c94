"""Divides a marquee ranking score among the entries of the history that it sums over. Knows memories and tables.

Knows no user id, profile or rating.
"""

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from two_tower.models.marquee_config import MarqueeConfig
from two_tower.serving import MovieEmbeddings
from two_tower.user_columns import Histories


def memory_weights(config: MarqueeConfig, table: str, ages: NDArray[np.int64]) -> NDArray[np.float64]:
    """Returns what the row of an event with so many newer ones weighs in the sum over one table. [E]."""
    weights = np.zeros(len(ages))
    for memory in config.memories:
        if memory.table == table:
            weights += memory.gain * memory.decay**ages
    return weights


def history_contributions(
    config: MarqueeConfig,
    tensors: Mapping[str, Tensor],
    histories: Histories,
    movies: MovieEmbeddings,
    positions: NDArray[np.int64],
    numbers: NDArray[np.int64],
) -> NDArray[np.float32]:
    """Returns what each history entry of user `positions[p]` adds to the ranking score of movie `numbers[p]`.

    Where the checkpoint remembers a user it remembers each visible entry with the weight that its age gives it here:
    memories fade by the event. So what is left of a score is the movie's bias, the bias of all users, what is left of
    the prior for everybody and for the profile, and the entries that the stored history has lost. Pair after pair,
    float32 [sum of history lengths].
    """
    added: list[NDArray[np.float32]] = [np.zeros(0, np.float32)] * len(positions)
    for user in np.unique(positions):
        entries = slice(int(histories.offsets[user]), int(histories.offsets[user + 1]))
        asked = np.flatnonzero(positions == user)
        rows = movies.movie_rows[histories.movie_numbers[entries]]  # [E]
        known = rows >= 0
        # A movie without a row makes no other one older: it was left out before events were counted.
        ages = np.cumsum(known) - 1
        index = torch.from_numpy(np.maximum(rows, 0)).to(movies.ranking_vectors.device)
        vectors = torch.zeros(len(rows), movies.ranking_vectors.shape[1], device=index.device)  # [E, K]
        for table in config.tables:
            weights = np.where(known, memory_weights(config, table, np.maximum(ages, 0)), 0).astype(np.float32)
            vectors += torch.from_numpy(weights).to(index.device)[:, None] * tensors[f"ranking.{table}"][index]
        wanted = torch.from_numpy(numbers[asked]).to(index.device)
        for pair, scores in zip(asked, (movies.ranking_vectors[wanted] @ vectors.T).cpu().numpy(), strict=True):
            added[pair] = scores
    return np.concatenate(added) if added else np.zeros(0, np.float32)
