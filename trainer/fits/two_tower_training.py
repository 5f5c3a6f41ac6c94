"""Trains `two-tower`: epochs, steps, processes and what is kept between them. Knows batches and weights; no movie.

All chance of an epoch comes from (seed, epoch, process), and the learning rate from the number of the step, so a
training that goes on from the end of an epoch ends as if it had never stopped.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from trainer.fits import Progress
from trainer.fits.divergence import KeptWeights
from trainer.fits.training_state import TrainingState
from trainer.fits.two_tower_options import Options
from trainer.fits.two_tower_sequences import CutOptions, Cuts, Sequences
from trainer.fits.two_tower_step import Step
from trainer.processes import Processes
from two_tower.hardware import multiplies_bf16

_FEW_USERS, _BATCH_OF_FEW, _BATCH_OF_MANY = 20_000, 32, 256
"""Users below which a step takes 32 of them, as LL does; more would leave too few steps."""


@dataclass(frozen=True, slots=True)
class Schedule:
    """How many users a step takes and how many cuts each."""

    batch_users: int
    cuts: int


class Training:
    """The loop."""

    def __init__(
        self, step: Step, sequences: Sequences, options: Options, schedule: Schedule, seed: int, processes: Processes
    ) -> None:
        self._step = step
        self._sequences = sequences
        self._options = options
        self._seed = seed
        self._processes = processes
        self._batch = max(1, schedule.batch_users // processes.count)
        self._cut_options = CutOptions(
            options.history_length, schedule.cuts, options.num_next, options.num_rated, options.hide_ties
        )
        self._users = np.flatnonzero(sequences.sizes > 1)
        largest_share = -(-len(self._users) // processes.count)
        self._steps_per_epoch = max(1, -(-largest_share // self._batch))

    def run(self, state: TrainingState | None, progress: Progress) -> None:
        """Trains all epochs that the state does not have yet.

        Raises:
            DivergedFitError: The loss is no longer a number; the weights of the last good epoch are put back.
        """
        options, towers = self._options, self._step.towers
        optimiser = _make_optimiser(towers, options)
        first_epoch = state.restore(towers, optimiser) if state is not None else 0
        rates = towers.config.scale is not None and options.rating_weight > 0
        fades = towers.config.ordered and towers.config.recency
        network = self._processes.share_gradients(self._step, some_unused=not (rates and fades))
        kept = KeptWeights(towers.state_dict())
        if first_epoch:
            kept.keep(first_epoch)
        device = towers.ranking_table.device
        low_precision = wants_bf16(options.precision, device)
        for epoch in range(first_epoch, options.epochs):
            rng = np.random.default_rng([self._seed, epoch, self._processes.rank])
            sums = dict.fromkeys(self._step.losses, 0.0)
            for number, cuts in enumerate(self._batches(epoch, rng)):
                rate = self._rate(epoch * self._steps_per_epoch + number)
                for group in optimiser.param_groups:
                    group["lr"] = options.learning_rate * rate
                with torch.autocast(device.type, torch.bfloat16, enabled=low_precision):
                    loss = network(cuts, rng)
                optimiser.zero_grad(set_to_none=True)
                loss.backward()
                optimiser.step()
                for name, value in self._step.losses.items():
                    sums[name] += value
                if number % 50 == 49:
                    done = epoch * self._steps_per_epoch + number + 1
                    progress(done, options.epochs * self._steps_per_epoch, f"epoch {epoch + 1} of {options.epochs}")
            means = self._processes.mean({name: total / self._steps_per_epoch for name, total in sums.items()})
            kept.require_finite(sum(means.values()), epoch + 1)
            kept.keep(epoch + 1)
            if state is not None and self._processes.is_first:
                state.save(towers, optimiser, epoch + 1)
            self._report(epoch, means, progress)

    def _report(self, epoch: int, means: dict[str, float], progress: Progress) -> None:
        figures = {"training cross-entropy": means["cross-entropy"]}
        if means["mse"]:
            figures["training mse"] = means["mse"]
        told = ", ".join(f"{name} {value:.4f}" for name, value in figures.items())
        epochs = self._options.epochs
        done = (epoch + 1) * self._steps_per_epoch
        progress(done, epochs * self._steps_per_epoch, f"epoch {epoch + 1} of {epochs}, {told}", figures)

    def _batches(self, epoch: int, rng: np.random.Generator) -> Iterator[Cuts]:
        """Puts users of similar length into one batch; each process has users of its own and as many batches."""
        count, rank = self._processes.count, self._processes.rank
        users = self._users[self._users % count == rank] if count > 1 else self._users
        if not len(users):
            users = self._users
        users = rng.permutation(users)
        users = users[np.argsort(self._sequences.sizes[users] * rng.uniform(0.8, 1.25, len(users)), kind="stable")]
        batches = [users[first : first + self._batch] for first in range(0, len(users), self._batch)]
        order = rng.permutation(len(batches))
        for number in range(self._steps_per_epoch):
            batch: NDArray[np.int64] = batches[order[number % len(batches)]]
            yield self._sequences.cut(batch, self._cut_options, rng)

    def _rate(self, step: int) -> float:
        """Rises over the first steps and falls as a cosine to 0."""
        warm_up = self._options.warm_up_steps
        if step < warm_up:
            return (step + 1) / warm_up
        total = self._options.epochs * self._steps_per_epoch
        return 0.5 * (1 + math.cos(math.pi * (step - warm_up) / max(1, total - warm_up)))


def choose_schedule(options: Options, num_users: int, num_candidates: int) -> Schedule:
    """Returns the users of a step and the cuts of each, as asked for or by the size of the data."""
    batch = options.batch_users or (_BATCH_OF_FEW if num_users < _FEW_USERS else _BATCH_OF_MANY)
    return Schedule(batch, options.cuts or max(4, min(30, 60_000 // max(1, num_candidates))))


def wants_bf16(precision: str, device: torch.device) -> bool:
    """Tells whether matrix products are to run in bfloat16: if asked for, or if the hardware multiplies it."""
    return multiplies_bf16(device) if precision == "auto" else precision == "bf16"


def _make_optimiser(towers: nn.Module, options: Options) -> torch.optim.Optimizer:
    tables = [parameter for name, parameter in towers.named_parameters() if name.endswith("_table")]
    others = [parameter for name, parameter in towers.named_parameters() if not name.endswith("_table")]
    groups: list[dict[str, Any]] = [{"params": tables, "weight_decay": options.weight_decay}, {"params": others}]
    return torch.optim.Adam(groups, lr=options.learning_rate, fused=True)
