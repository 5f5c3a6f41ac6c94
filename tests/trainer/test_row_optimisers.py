"""Updating only the used rows gives what updating all rows would, as far as it claims to."""

import pytest
import torch

from trainer.fits.row_optimisers import RowAdam, RowOptimiser, RowRmsprop, RowSgd


def run(optimiser: RowOptimiser, steps: int = 30) -> None:
    """Pulls the rows 0 and 2 towards 1, naming row 0 in two parts."""
    table = optimiser._table  # type: ignore[attr-defined]
    for _ in range(steps):
        gradients = table - 1
        optimiser.step(
            (torch.tensor([0, 2]), gradients[[0, 2]] * torch.tensor([[0.5], [1.0]])),
            (torch.tensor([0]), gradients[[0]] * 0.5),
        )


@pytest.mark.parametrize(
    ("row_optimiser", "dense_optimiser"),
    [
        (lambda table: RowSgd(table, 0.1, 0.0), lambda table: torch.optim.SGD([table], 0.1)),
        (lambda table: RowAdam(table, 0.1), lambda table: torch.optim.Adam([table], 0.1)),
        (lambda table: RowRmsprop(table, 0.1), lambda table: torch.optim.RMSprop([table], 0.1)),
    ],
    ids=["sgd", "adam", "rmsprop"],
)
def test_rows_used_at_every_step_move_as_the_dense_rule_says(row_optimiser: object, dense_optimiser: object) -> None:
    """On rows that every step uses there is no difference; the others stay where they are."""
    table, dense = torch.zeros(4, 3), torch.zeros(4, 3, requires_grad=True)
    reference = dense_optimiser(dense)  # type: ignore[operator]

    run(row_optimiser(table))  # type: ignore[operator]
    for _ in range(30):
        dense.grad = dense.detach() - 1
        reference.step()

    assert torch.allclose(table[[0, 2]], dense.detach()[[0, 2]], atol=1e-6)
    assert not table[[1, 3]].any()


def test_momentum_of_a_single_gradient_ends_where_it_should() -> None:
    """One gradient moves a row by lr/(1 - m) in the end; here it does so at once."""
    table, dense = torch.zeros(1, 1), torch.zeros(1, 1, requires_grad=True)
    reference = torch.optim.SGD([dense], 0.1, momentum=0.5)

    RowSgd(table, 0.1, 0.5).step((torch.tensor([0]), torch.ones(1, 1)))
    for step in range(40):
        dense.grad = torch.full((1, 1), float(step == 0))
        reference.step()

    assert table.item() == pytest.approx(dense.item(), abs=1e-6)
