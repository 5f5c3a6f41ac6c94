"""Adam that visits rows late ends where Adam over the whole table does."""

import numpy as np
import pytest
import torch

from trainer.fits.late_adam import LateAdam

NUM_ROWS, WIDTH, STEPS = 40, 3, 500


def batches() -> list[np.ndarray]:
    """Rows of 8 samples a step, some repeated; most steps use the first rows only, the others wait for hundreds."""
    rng = np.random.default_rng(0)
    return [rng.integers(0, NUM_ROWS if step % 150 == 7 else 3, 8) for step in range(STEPS)]


def towards_one(rows: np.ndarray) -> np.ndarray:
    """Gradient of .05·|row - 1|²."""
    gradients: np.ndarray = (rows - 1) * np.float32(0.1)
    return gradients


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_late_steps_are_the_steps_of_the_dense_rule(weight_decay: float) -> None:
    """Rows that were missed for a step or for hundreds stand where torch.optim.Adam puts them."""
    table = np.random.default_rng(1).normal(0, 1, (NUM_ROWS, WIDTH)).astype(np.float32)
    dense = torch.tensor(table.copy(), requires_grad=True)
    reference = torch.optim.Adam([dense], 0.01, weight_decay=weight_decay)
    late = LateAdam(table, 0.01, weight_decay=weight_decay)

    for rows in batches():
        late.step(rows, towards_one(late.rows(rows)))
        reference.zero_grad()
        (0.05 * (dense[torch.from_numpy(rows)] - 1).square().sum()).backward()
        reference.step()
    late.finish()

    assert table == pytest.approx(dense.detach().numpy(), abs=1e-5)


def test_without_late_steps_unused_rows_stay() -> None:
    """Then only what a batch names is moved."""
    table = np.zeros((3, 2), np.float32)
    late = LateAdam(table, 0.01, late_steps=False)

    for _ in range(10):
        late.step(np.array([1]), towards_one(late.rows(np.array([1]))))
    late.finish()

    assert not table[[0, 2]].any()
    assert (table[1] > 0.05).all()
