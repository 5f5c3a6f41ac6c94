"""Solves many small Bayesian ridge regressions at once. Knows designs and targets; knows no user, movie or rating."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def posterior_means(designs: Tensor, targets: Tensor) -> Tensor:
    """Returns the posterior mean of each regression's weights under the prior N(0, I) and noise of variance 1.

    A row with another noise is given divided by its standard deviation, target too; an unused row is zeros. Of the two
    equal forms (Rasmussen & Williams 2006, section 2.1) the one with the smaller matrix is solved. B = regressions,
    n = rows, R = weights.

    Args:
        designs: float32 [B, n, R]
        targets: float32 [B, n]

    Returns:
        float32 [B, R]
    """
    num_rows, num_weights = designs.shape[1:]
    transposed = designs.transpose(1, 2)  # [B, R, n]
    if num_rows <= num_weights:
        gram = torch.bmm(designs, transposed)  # [B, n, n]
        gram.diagonal(dim1=1, dim2=2).add_(1.0)
        solved = torch.cholesky_solve(targets[:, :, None], torch.linalg.cholesky(gram))  # [B, n, 1]
        return torch.bmm(transposed, solved)[:, :, 0]
    gram = torch.bmm(transposed, designs)  # [B, R, R]
    gram.diagonal(dim1=1, dim2=2).add_(1.0)
    moments = torch.bmm(transposed, targets[:, :, None])  # [B, R, 1]
    return torch.cholesky_solve(moments, torch.linalg.cholesky(gram))[:, :, 0]


def posterior_variances(designs: Tensor, queries: Tensor) -> Tensor:
    """Returns the posterior variance of each query's product with the weights, under the model of `posterior_means`.

    B = regressions, n = rows, R = weights, Q = queries of a regression.

    Args:
        designs: float32 [B, n, R]
        queries: float32 [B, Q, R]

    Returns:
        float32 [B, Q]
    """
    num_rows, num_weights = designs.shape[1:]
    turned = queries.transpose(1, 2)  # [B, R, Q]
    if num_rows <= num_weights:
        gram = torch.bmm(designs, designs.transpose(1, 2))  # [B, n, n]
        gram.diagonal(dim1=1, dim2=2).add_(1.0)
        known = torch.linalg.solve_triangular(torch.linalg.cholesky(gram), torch.bmm(designs, turned), upper=False)
        left: Tensor = queries.square().sum(dim=-1) - known.square().sum(dim=1)
        return left.clamp_(min=0.0)
    gram = torch.bmm(designs.transpose(1, 2), designs)  # [B, R, R]
    gram.diagonal(dim1=1, dim2=2).add_(1.0)
    halves: Tensor = torch.linalg.solve_triangular(torch.linalg.cholesky(gram), turned, upper=False)
    return halves.square().sum(dim=1)


@dataclass(frozen=True, slots=True, eq=False)
class PosteriorFactor:
    """One regression as `posterior_variances` solves it, kept on the host for queries to come. R = weights.

    Attributes:
        matrix: Its product with a query has the length by which the rows narrowed the prior, or, where there are more
            rows than weights, the length that they left. float32 [min(n, R), R]
        narrows: Which of the two it is.
    """

    matrix: NDArray[np.float32]
    narrows: bool

    @classmethod
    @torch.no_grad()
    def of(cls, design: Tensor) -> "PosteriorFactor":
        """Solves the regression of some rows, given as to `posterior_means`. float32 [n, R]."""
        num_rows, num_weights = design.shape
        if num_rows <= num_weights:
            gram = design @ design.T  # [n, n]
            gram.diagonal().add_(1.0)
            solved = torch.linalg.solve_triangular(torch.linalg.cholesky(gram), design, upper=False)  # [n, R]
            return cls(solved.cpu().numpy(), narrows=True)
        gram = design.T @ design  # [R, R]
        gram.diagonal().add_(1.0)
        unit = torch.eye(num_weights, device=design.device)
        inverse = torch.linalg.solve_triangular(torch.linalg.cholesky(gram), unit, upper=False)  # [R, R]
        return cls(inverse.cpu().numpy(), narrows=False)

    def variances(self, queries: NDArray[np.float32]) -> NDArray[np.float32]:
        """Returns the posterior variance of each query's product with the weights. float32 [Q, R] to float32 [Q]."""
        lengths: NDArray[np.float32] = np.add.reduce(np.square(queries @ self.matrix.T), axis=-1)  # [Q]
        if self.narrows:
            prior: NDArray[np.float32] = np.add.reduce(np.square(queries), axis=-1)  # [Q]
            lengths = np.maximum(prior - lengths, 0)
        return lengths
