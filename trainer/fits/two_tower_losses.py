"""What `two-tower` is trained by: softmax over movies and views pulled together. Knows vectors; no user and no file."""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

SEEN_SCORE = -1e4
"""Of a movie that must not be guessed: its share of a softmax is 0 in float32, and stays finite."""


class _SoftmaxLoss(torch.autograd.Function):
    """Cross-entropy of weighted targets, its gradient made at once: one matrix of scores in memory, not four."""

    @staticmethod
    def forward(
        ctx: Any,
        users: Tensor,
        vectors: Tensor,
        biases: Tensor,
        masked: tuple[Tensor, Tensor],
        targets: tuple[Tensor, Tensor],
        weights: Tensor,
    ) -> Tensor:
        scores = torch.addmm(biases, users, vectors.T).float()  # [Q, N]
        scores[masked] = SEEN_SCORE
        wanted = scores[targets]  # [t]
        totals = torch.zeros(len(users), device=users.device).index_add_(0, targets[0], weights)  # [Q]
        highest = scores.amax(dim=-1, keepdim=True)  # [Q, 1]
        errors = scores.sub_(highest).exp_()
        sums = errors.sum(dim=-1, keepdim=True)  # [Q, 1]
        log_shares = wanted - (highest + sums.log())[targets[0], 0]  # [t]
        errors.mul_(totals[:, None] / sums)
        errors.index_put_(targets, -weights, accumulate=True)
        # Scores at the mask do not depend on the vectors.
        errors[masked] = 0
        low = errors.to(users.dtype)
        ctx.save_for_backward(low @ vectors, low.T @ users, errors.sum(dim=0).to(biases.dtype))
        return -(weights * log_shares).sum()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        users, vectors, biases = ctx.saved_tensors
        return gradient * users, gradient * vectors, gradient * biases, None, None, None


def softmax_loss(
    users: Tensor,
    vectors: Tensor,
    biases: Tensor,
    masked: tuple[Tensor, Tensor],
    targets: tuple[Tensor, Tensor],
    weights: Tensor,
) -> Tensor:
    """Returns the weighted sum of -log softmax(users · vectors + biases) at the targets.

    Args:
        users: [Q, D]
        vectors: [N, D]
        biases: [N]
        masked: Places of [Q, N] that take no part, none of them a target.
        targets: Places of [Q, N] that are to be guessed.
        weights: Of each target.
    """
    found: Tensor = _SoftmaxLoss.apply(users, vectors, biases, masked, targets, weights)  # type: ignore[no-untyped-call]
    return found


def contrast(views: Tensor, others: Tensor, temperature: float = 0.2) -> Tensor:
    """Returns how badly each view is told from its fellows by its other view: InfoNCE on cosines. [n, D] twice.

    The temperature is that of Wu et al. 2021, section 4.1.3.
    """
    cosines = functional.normalize(views, dim=-1) @ functional.normalize(others, dim=-1).T  # [n, n]
    return functional.cross_entropy(cosines / temperature, torch.arange(len(views), device=views.device))


def log_inclusion(frequencies: Tensor, draws: int) -> Tensor:
    """Returns the log of the chance that each movie is among `draws` draws by frequency: log Q. [N] → [N]."""
    return torch.log(-torch.expm1(draws * torch.log1p(-frequencies.clamp(1e-12, 1 - 1e-6))))
