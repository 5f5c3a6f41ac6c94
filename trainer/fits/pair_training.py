"""Trains on mini-batches until the epochs are over or nothing improves. Knows rows by position; knows no network.

What is trained says how one step is taken; this loop says over which rows, when to stop and which weights to keep.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from trainer.fits import Progress
from trainer.fits.divergence import KeptWeights
from trainer.fits.training_state import TrainingState


class Trainee(Protocol):
    """What is trained. n = training rows, B = rows of a batch."""

    def weights(self) -> Mapping[str, Tensor]:
        """Returns all tensors that training changes, in place."""

    def step(self, positions: Tensor) -> Tensor:
        """Takes one step on the training rows at these positions [B]; returns the sum of their losses, detached. []."""

    def validation_loss(self) -> float | None:
        """Returns the mean loss of the validation rows, None if there are none."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How long to train.

    Attributes:
        num_rows: Training rows.
        batch_size: Rows a step.
        epochs: Passes over the training rows, at most.
        loss: What the loss is called in figures, "mse" or "mae".
        keep: Whose best epoch gives the weights; "last" takes the last epoch's, "last batch" goes by the training loss
            of each epoch's last batch alone.
        patience: Epochs without a better figure after which training stops, 0 for never.
        shuffled: Whether each epoch draws a new order; else it is that of the rows.
    """

    num_rows: int
    batch_size: int
    epochs: int
    loss: str
    keep: Literal["last", "training", "validation", "last batch"] = "last"
    patience: int = 0
    shuffled: bool = True


@dataclass(slots=True)
class Course:
    """How a training went, epoch by epoch.

    Attributes:
        training: Mean loss of the training rows while they were learnt from.
        validation: Mean loss of the validation rows after the epoch; empty without such rows.
        kept_epoch: The epoch, counted from 1, whose weights were kept.
    """

    training: list[float] = field(default_factory=list)
    validation: list[float] = field(default_factory=list)
    kept_epoch: int = 0


@dataclass(frozen=True, slots=True)
class Keeping:
    """How a training is kept on disk between epochs.

    Attributes:
        state: Where.
        network: All that training changes, beside the optimiser.
        optimiser: Its memory is kept, too.
        go_on_after: Told how many steps were taken before, where a training goes on.
    """

    state: TrainingState
    network: nn.Module
    optimiser: torch.optim.Optimizer
    go_on_after: Callable[[int], None]


class EpochListener(Protocol):
    """Is asked after every epoch; may change learning rates, or raise."""

    def __call__(self, course: Course) -> None:
        """Hears how training went so far."""


def run(
    trainee: Trainee,
    plan: Plan,
    rng: np.random.Generator,
    progress: Progress,
    after_epoch: EpochListener = lambda course: None,
    keeping: Keeping | None = None,
) -> Course:
    """Trains; at the end the weights are those of the epoch that the plan wants kept.

    A training that goes on ends as if it had never stopped: what chance there is is kept with it.

    Raises:
        DivergedFitError: A loss is not finite; the weights are those of the last epoch that was kept.
    """
    kept = KeptWeights(trainee.weights())
    course = Course()
    best = math.inf
    first_epoch = 1
    if keeping is not None and (done := keeping.state.restore(keeping.network, keeping.optimiser)):
        best = _go_on(keeping, plan, done, course, kept, rng)
        first_epoch = plan.epochs + 1 if _is_over(plan, done, kept.epoch) else done + 1
    for epoch in range(first_epoch, plan.epochs + 1):
        order = torch.from_numpy(rng.permutation(plan.num_rows)) if plan.shuffled else torch.arange(plan.num_rows)
        summed, of_batch = torch.zeros(()), torch.zeros(())
        for positions in torch.split(order, plan.batch_size):
            of_batch = trainee.step(positions)
            summed += of_batch
        training = float(summed) / max(plan.num_rows, 1)
        kept.require_finite(training, epoch)
        course.training.append(training)
        validation = trainee.validation_loss()
        if validation is not None:
            kept.require_finite(validation, epoch)
            course.validation.append(validation)
        after_epoch(course)
        last_batch = float(of_batch) / ((plan.num_rows - 1) % plan.batch_size + 1)
        watched = _watched(plan, training, last_batch, validation)
        if watched is None or watched < best:
            best = math.inf if watched is None else watched
            kept.keep(epoch)
        if keeping is not None:
            _keep(keeping, epoch, best, course, kept, rng)
        stopping = _is_over(plan, epoch, kept.epoch)
        _report(plan, course, epoch, kept.epoch, stopping, progress)
        if stopping:
            break
    kept.put_back()
    course.kept_epoch = kept.epoch
    return course


def _is_over(plan: Plan, epoch: int, kept_epoch: int) -> bool:
    return bool(plan.patience) and epoch - kept_epoch >= plan.patience


def _keep(
    keeping: Keeping, epoch: int, best: float, course: Course, kept: KeptWeights, rng: np.random.Generator
) -> None:
    told = {
        "best": best,
        "kept epoch": kept.epoch,
        "training": course.training,
        "validation": course.validation,
        "chance": rng.bit_generator.state,
    }
    keeping.state.save(keeping.network, keeping.optimiser, epoch, beside=kept.kept(), told=told)


def _go_on(
    keeping: Keeping, plan: Plan, done: int, course: Course, kept: KeptWeights, rng: np.random.Generator
) -> float:
    """Sets everything to where it was after `done` epochs; returns the best figure until then."""
    told = keeping.state.told
    course.training, course.validation = list(told["training"]), list(told["validation"])
    kept.take(keeping.state.beside, int(told["kept epoch"]))
    rng.bit_generator.state = told["chance"]
    keeping.go_on_after(done * -(-plan.num_rows // plan.batch_size))
    return float(told["best"])


def split_validation(
    num_rows: int, share: float, rng: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Divides positions into those to learn from and a share to choose by; both in order, the first never empty."""
    drawn = rng.permutation(num_rows)
    held = min(int(share * num_rows), num_rows - 1)
    return np.sort(drawn[held:]), np.sort(drawn[:held])


def _watched(plan: Plan, training: float, last_batch: float, validation: float | None) -> float | None:
    return {"last": None, "training": training, "last batch": last_batch, "validation": validation}[plan.keep]


def _report(plan: Plan, course: Course, epoch: int, kept_epoch: int, stopping: bool, progress: Progress) -> None:
    figures = {f"training {plan.loss}": course.training[-1]}
    if course.validation:
        figures[f"validation {plan.loss}"] = course.validation[-1]
    said = ", ".join(f"{name} {value:.4f}" for name, value in figures.items())
    if stopping:
        said += f"; stopped, epoch {kept_epoch} was the best"
    # A bar that stops early is full all the same.
    done = plan.epochs if stopping else epoch
    progress(done, plan.epochs, f"epoch {epoch} of {plan.epochs}, {said}", figures)
