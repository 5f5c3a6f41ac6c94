"""Fits a weighted linear map from content features to vectors. Knows features and targets; knows no movie or user."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class ContentRidge:
    """A map from F features and a constant to T targets.

    Attributes:
        coefficients: The constant's row is the last. float32 [F + 1, T]
        left_out_variances: Mean squared error of each target where its own row was left out. float64 [T]
    """

    coefficients: NDArray[np.float32]
    left_out_variances: NDArray[np.float64]


def fit_content_ridge(
    features: NDArray[np.float32], targets: NDArray[np.floating], weights: NDArray[np.floating], ridge: float
) -> ContentRidge:
    """Solves (XᵀWX + λI)B = XᵀWY, the constant not penalised.

    Args:
        features: [n, F]
        targets: [n, T]
        weights: How much each row counts, not all 0. [n]
        ridge: λ.
    """
    design = np.concatenate([features, np.ones((len(features), 1))], axis=1).astype(np.float64)  # [n, F + 1]
    weighted = design * weights[:, None]
    penalty = np.full(design.shape[1], ridge)
    penalty[-1] = 1e-6
    gram = weighted.T @ design + np.diag(penalty)
    coefficients = np.linalg.solve(gram, weighted.T @ targets)
    # Leave-one-out errors of a linear smoother are its residuals over one minus leverage (Hastie et al. 2009, 7.64).
    leverage = np.einsum("nf,nf->n", weighted, np.linalg.solve(gram, design.T).T)
    errors = (targets - design @ coefficients) / np.maximum(1 - leverage, 1e-6)[:, None]
    variances = (weights[:, None] * errors**2).sum(0) / max(float(weights.sum()), 1e-12)
    return ContentRidge(coefficients.astype(np.float32), variances)


def choose_content_ridge(
    features: NDArray[np.float32],
    targets: NDArray[np.floating],
    weights: NDArray[np.floating],
    ridges: Sequence[float],
    importances: NDArray[np.floating],
) -> ContentRidge:
    """Returns the map whose errors on rows that were left out are least, of those that some penalties give.

    Args:
        features: [n, F]
        targets: [n, T]
        weights: How much each row counts, not all 0. [n]
        ridges: The penalties to choose from, at least one.
        importances: How much a squared error of each target counts. [T]
    """
    maps = [fit_content_ridge(features, targets, weights, ridge) for ridge in ridges]
    return min(maps, key=lambda made: float(made.left_out_variances @ importances))
