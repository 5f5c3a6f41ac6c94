"""Holds movies in bfloat16, for products that only tell who may be among the best. Knows vectors; knows no ranking.

A processor with a unit for it multiplies bfloat16 several times as fast as float32 and reads half of the bytes. What it
finds is off by more, but by no more than can be told beforehand; whoever may be among the best in spite of that is
scored again from the float32 vectors.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

_FLOAT32_ULP = 2.0**-23
_SMALLEST = 2.0**-126
"""What is smaller a processor may take for zero, or make zero of."""

_AT_ONCE = 8192
"""Movies that are measured in float64 at once: some MiB of them."""

HALF_ULP = 2.0**-8
"""Largest relative error of a number rounded to bfloat16, which keeps eight bits of it."""


@dataclass(frozen=True, slots=True, eq=False)
class NarrowMovies:
    """Movie vectors of one head, rounded. Letters: M movies, D dimensions.

    Attributes:
        vectors: Behind each vector its bias in two parts, which together are nearly the float32 one. bf16 [M, D + 2]
        norm: Largest norm of a rounded vector.
        lost: Largest norm of what rounding took from a vector.
        bias: Largest sum of the absolute parts of a bias.
        bias_lost: Largest absolute part of a bias that is in neither.
    """

    vectors: Tensor
    norm: float
    lost: float
    bias: float
    bias_lost: float

    @classmethod
    def of(cls, vectors: Tensor, biases: Tensor) -> "NarrowMovies":
        """Rounds float32 vectors [M, D] and biases [M], and measures what that loses."""
        width = vectors.shape[-1]
        narrow = vectors.new_empty(len(vectors), width + 2, dtype=torch.bfloat16)
        measured = vectors.new_zeros(4, dtype=torch.float64)
        for start in range(0, len(vectors), _AT_ONCE):
            rows = slice(start, start + _AT_ONCE)
            wide, bias, into = vectors[rows].double(), biases[rows].double(), narrow[rows]
            into[:, :width] = wide
            into[:, width] = bias
            into[:, width + 1] = bias - into[:, width].double()
            rounded = into.double()
            parts = rounded[:, width:]  # [m, 2]
            magnitudes = (
                rounded[:, :width].norm(dim=-1),
                (wide - rounded[:, :width]).norm(dim=-1),
                parts.abs().sum(dim=-1),
                (bias - parts.sum(dim=-1)).abs(),
            )
            measured = torch.maximum(measured, torch.stack([each.max() for each in magnitudes]))
        return cls(narrow, *measured.tolist())

    def round_users(self, users: Tensor) -> tuple[Tensor, NDArray[np.float64]]:
        """Returns user vectors to multiply with the movies', and how far their products may be from the true scores.

        Before the product itself is rounded to bfloat16, that is. What rounding takes from a user meets at most the
        longest movie, and the other way round (Cauchy-Schwarz); the sum of the rounded products is off by as many ulp
        as it has terms, at most (Higham, Accuracy and Stability of Numerical Algorithms, 3.1), and each step by what is
        too small for a number.

        Args:
            users: float32 [B, D]

        Returns:
            bf16 [B, D + 2] and float64 [B]; the latter is not finite where numbers are too large for products.
        """
        narrow = users.bfloat16()  # [B, D]
        norms, rounded = users.double().norm(dim=-1).numpy(), narrow.double().norm(dim=-1).numpy()  # [B]
        lost = (users.double() - narrow.double()).norm(dim=-1).numpy()  # [B]
        num_terms = users.shape[-1] + 2
        most = rounded * self.norm + self.bias  # [B]
        by_rounding = lost * self.norm + norms * self.lost + self.bias_lost
        by_underflow = _SMALLEST * (3 * num_terms + num_terms**0.5 * (norms + self.norm))
        errors = by_rounding + num_terms * _FLOAT32_ULP * most + by_underflow
        ones = narrow.new_ones(len(users), 2)
        return torch.cat([narrow, ones], dim=-1), errors
