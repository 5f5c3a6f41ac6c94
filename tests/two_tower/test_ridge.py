"""Many small ridge regressions at once give what one textbook regression each would."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from two_tower.ridge import posterior_means, posterior_variances


def textbook(design: NDArray[np.float64], targets: NDArray[np.float64]) -> NDArray[np.floating]:
    """(ZᵀZ + I)⁻¹ Zᵀy in double precision."""
    design = design.astype(np.float64)
    solved: NDArray[np.floating] = np.linalg.solve(design.T @ design + np.eye(design.shape[1]), design.T @ targets)
    return solved


@pytest.mark.parametrize(("num_rows", "num_weights"), [(1, 5), (5, 5), (6, 5), (200, 64)])
def test_the_posterior_mean_is_the_ridge_solution(num_rows: int, num_weights: int) -> None:
    """On both sides of the switch from the rows' matrix to the weights' matrix."""
    rng = np.random.default_rng(0)
    designs = rng.normal(size=(3, num_rows, num_weights)).astype(np.float32)
    targets = rng.normal(size=(3, num_rows)).astype(np.float32)

    found = posterior_means(torch.from_numpy(designs), torch.from_numpy(targets)).numpy()

    for b in range(3):
        assert found[b] == pytest.approx(textbook(designs[b], targets[b]), abs=2e-5)


@pytest.mark.parametrize(("num_rows", "num_weights"), [(1, 5), (6, 5), (200, 64)])
def test_the_posterior_variance_is_that_of_the_textbook(num_rows: int, num_weights: int) -> None:
    """qᵀ(ZᵀZ + I)⁻¹q, on both sides of the switch."""
    rng = np.random.default_rng(0)
    designs = rng.normal(size=(3, num_rows, num_weights)).astype(np.float32)
    queries = rng.normal(size=(3, 7, num_weights)).astype(np.float32)

    found = posterior_variances(torch.from_numpy(designs), torch.from_numpy(queries)).numpy()

    for b in range(3):
        precision = designs[b].astype(np.float64).T @ designs[b] + np.eye(num_weights)
        assert found[b] == pytest.approx(np.diag(queries[b] @ np.linalg.solve(precision, queries[b].T)), rel=1e-3)


def test_rows_of_zeros_change_nothing() -> None:
    """So histories of different lengths can share a batch."""
    rng = np.random.default_rng(1)
    designs = torch.from_numpy(rng.normal(size=(2, 3, 8)).astype(np.float32))
    targets = torch.from_numpy(rng.normal(size=(2, 3)).astype(np.float32))
    padded = torch.cat([designs, torch.zeros(2, 20, 8)], dim=1)

    found = posterior_means(padded, torch.cat([targets, torch.zeros(2, 20)], dim=1))

    assert torch.allclose(found, posterior_means(designs, targets), atol=1e-6)


def test_no_evidence_leaves_the_prior() -> None:
    """Without any row the mean is zero, not NaN."""
    assert posterior_means(torch.zeros(2, 0, 3), torch.zeros(2, 0)).tolist() == [[0, 0, 0], [0, 0, 0]]
