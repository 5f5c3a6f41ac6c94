"""Updates only those rows of a table that a batch used. Knows tables and gradients; knows no user and no movie.

A dense optimiser touches every row at every step: a million rows for a batch of 64.
"""

from typing import Protocol

import torch
from torch import Tensor


class RowOptimiser(Protocol):
    """Follows the gradient of one table."""

    def step(self, *parts: tuple[Tensor, Tensor]) -> None:
        """Takes one step: each part is rows [n], which may be named several times, and their gradients [n, W]."""


class RowSgd:
    """Stochastic gradient descent with momentum.

    What momentum m would add over the following steps, m + m² + ... = m/(1 - m) of the step, is added at once: so there
    is no state, and a row that is not used does not have to be visited. For m = .05 the two differ by a delay of 5% of
    a step.
    """

    def __init__(self, table: Tensor, learning_rate: float, momentum: float) -> None:
        self._table = table.data
        self._rate = learning_rate / (1 - momentum)

    def step(self, *parts: tuple[Tensor, Tensor]) -> None:
        """Takes one step."""
        for rows, gradients in parts:
            self._table.index_add_(0, rows, gradients, alpha=-self._rate)


class RowAdam:
    """Adam (Kingma & Ba 2015, algorithm 1), moments of unused rows left as they are, as in torch.optim.SparseAdam."""

    def __init__(self, table: Tensor, learning_rate: float) -> None:
        self._table = table.data
        self._rate = learning_rate
        self._means = torch.zeros_like(table.data)
        self._squares = torch.zeros_like(table.data)
        self._num_steps = 0

    def step(self, *parts: tuple[Tensor, Tensor]) -> None:
        """Takes one step."""
        self._num_steps += 1
        used, summed = _sum_by_row(parts)  # [u], [u, W]
        means = self._means[used].lerp_(summed, 1 - 0.9)  # [u, W]
        squares = self._squares[used].lerp_(summed.square(), 1 - 0.999)  # [u, W]
        self._means[used], self._squares[used] = means, squares
        corrected_mean = means / (1 - 0.9**self._num_steps)
        corrected_root = (squares / (1 - 0.999**self._num_steps)).sqrt_()
        self._table[used] -= self._rate * corrected_mean / (corrected_root + 1e-8)


class RowRmsprop:
    """RMSprop (Hinton's lecture 6e; constants of torch.optim.RMSprop), squares of unused rows left as they are."""

    def __init__(self, table: Tensor, learning_rate: float) -> None:
        self._table = table.data
        self._rate = learning_rate
        self._squares = torch.zeros_like(table.data)

    def step(self, *parts: tuple[Tensor, Tensor]) -> None:
        """Takes one step."""
        used, summed = _sum_by_row(parts)  # [u], [u, W]
        squares = self._squares[used].lerp_(summed.square(), 1 - 0.99)  # [u, W]
        self._squares[used] = squares
        self._table[used] -= self._rate * summed / (squares.sqrt() + 1e-8)


def make_row_optimiser(name: str, table: Tensor, learning_rate: float, momentum: float) -> RowOptimiser:
    """Returns the optimiser called sgd, adam or rmsprop for one table."""
    if name == "sgd":
        return RowSgd(table, learning_rate, momentum)
    if name == "adam":
        return RowAdam(table, learning_rate)
    return RowRmsprop(table, learning_rate)


def _sum_by_row(parts: tuple[tuple[Tensor, Tensor], ...]) -> tuple[Tensor, Tensor]:
    rows = torch.cat([part_rows for part_rows, _ in parts])  # [n]
    gradients = torch.cat([part_gradients for _, part_gradients in parts])  # [n, W]
    used, places = torch.unique(rows, return_inverse=True)  # [u], [n]
    return used, torch.zeros(len(used), gradients.shape[1]).index_add_(0, places, gradients)  # [u, W]
