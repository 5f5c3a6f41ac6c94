"""Trains two towers and the layers over their product, on mini-batches larger than the tables. Knows no tower.

With 10,000 rows a step and 2,500 users, each user's tower would run four times a step on the same input: a tower runs
once over all its rows instead, and the batch picks from the result. The gradient is the same.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from trainer.fits.pair_training import Keeping
from trainer.fits.rated_pairs import RatedPairs
from trainer.fits.training_state import TrainingState

_ROWS_VALIDATED_AT_ONCE = 1 << 15


@dataclass(frozen=True, slots=True)
class Tower:
    """One side of the network. B = rows of a batch, T = tower width.

    Attributes:
        embed: Runs the tower over inputs, named by number. int64 [B] → [B, T]
        num_inputs: Numbers that `embed` takes.
        input_of_row: The number of each row of the data set. int64 [rows of the data set]
    """

    embed: Callable[[Tensor], Tensor]
    num_inputs: int
    input_of_row: Tensor

    def run(self, rows: Tensor) -> Tensor:
        """Runs the tower over rows of the data set. [B] → [B, T]."""
        numbers = self.input_of_row[rows]
        if self.num_inputs > len(rows):
            return self.embed(numbers)
        return nn.functional.embedding(numbers, self.embed(torch.arange(self.num_inputs)))


class TowerPairs:
    """Both towers, what becomes of a pair, and the optimiser; the loss is the squared error."""

    def __init__(
        self,
        network: nn.Module,
        users: Tower,
        movies: Tower,
        meet: Callable[[Tensor, Tensor], Tensor],
        optimiser: torch.optim.Optimizer,
        rate_of_step: Callable[[int], float] | None,
        learn: RatedPairs,
        choose: RatedPairs,
    ) -> None:
        """Takes the parts; `rate_of_step` gives the learning rate of each step, counted from 0, None leaves it."""
        self._network = network
        self._users = users
        self._movies = movies
        self._meet = meet
        self._optimiser = optimiser
        self._rate_of_step = rate_of_step
        self._learn = learn
        self._choose = choose
        self._num_steps = 0

    def kept_in(self, state: TrainingState | None) -> Keeping | None:
        """Returns how the training is kept in a state, None without one."""
        return None if state is None else Keeping(state, self._network, self._optimiser, self._go_on_after)

    def _go_on_after(self, num_steps: int) -> None:
        self._num_steps = num_steps

    def weights(self) -> Mapping[str, Tensor]:
        """Returns all weights."""
        return self._network.state_dict()

    def step(self, positions: Tensor) -> Tensor:
        """Takes one step."""
        if self._rate_of_step is not None:
            for group in self._optimiser.param_groups:
                group["lr"] = self._rate_of_step(self._num_steps)
        self._num_steps += 1
        squared_error = self._squared_error(self._learn.take(positions))
        self._optimiser.zero_grad(set_to_none=True)
        (squared_error / len(positions)).backward()  # type: ignore[no-untyped-call]
        self._optimiser.step()
        return squared_error.detach()

    @torch.no_grad()
    def validation_loss(self) -> float | None:
        """Returns the mean squared error of the validation rows."""
        if not len(self._choose):
            return None
        blocks = torch.split(torch.arange(len(self._choose)), _ROWS_VALIDATED_AT_ONCE)
        return sum(float(self._squared_error(self._choose.take(block))) for block in blocks) / len(self._choose)

    def _squared_error(self, pairs: RatedPairs) -> Tensor:
        met = self._meet(self._users.run(pairs.users), self._movies.run(pairs.movies))  # [B]
        return (met - pairs.ratings).square().sum()


def shortest_prefix(rows: NDArray[np.integer], share: float) -> NDArray[np.int64]:
    """Returns the shortest list of the most frequent values that covers a share of `rows`, most frequent first.

    Of equally frequent values the smaller comes first.
    """
    values, counts = np.unique(rows, return_counts=True)
    order = np.argsort(-counts, kind="stable")
    covered = np.cumsum(counts[order])
    # The epsilon keeps a share of 1 from asking for more than all.
    length = int(np.searchsorted(covered, share * len(rows) - 1e-9)) + 1
    kept: NDArray[np.int64] = values[order[:length]].astype(np.int64)
    return kept


def initialise_as_keras(network: nn.Module, generator: torch.Generator) -> None:
    """Starts as Keras does: tables uniform within .05, layers uniform within √(6/(in + out)) (Glorot & Bengio 2010).

    https://keras.io/api/layers/core_layers/embedding and https://keras.io/api/layers/core_layers/dense
    """
    with torch.no_grad():
        for name, table in network.named_parameters():
            if name.endswith("_table"):
                table.uniform_(-0.05, 0.05, generator=generator)
        for layer in network.modules():
            if isinstance(layer, nn.Linear):
                bound = (6 / (layer.in_features + layer.out_features)) ** 0.5
                layer.weight.uniform_(-bound, bound, generator=generator)
                layer.bias.zero_()


def put_unused_row_at_mean(table: Tensor, rows: NDArray[np.int64]) -> None:
    """Where no training row used row 0, there being no others, sets it to the mean of what was trained."""
    if len(table) > 1 and rows.all():
        with torch.no_grad():
            table[0] = table[1:].mean(dim=0)
