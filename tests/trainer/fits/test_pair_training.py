"""The loop over mini-batches, with a trainee whose losses are written down beforehand."""

from collections.abc import Mapping, Sequence
from itertools import chain

import numpy as np
import pytest
import torch
from torch import Tensor

from trainer.errors import TrainerError
from trainer.fits import silent
from trainer.fits.divergence import DivergedFitError, KeptWeights, last_good_model
from trainer.fits.pair_training import Course, Plan, run, split_validation


class Scripted:
    """Has the losses that it is told, and as its one weight the number of epochs that it was trained."""

    def __init__(self, training: Sequence[float], validation: Sequence[float] | None = None, rows: int = 4) -> None:
        self._training = training
        self._validation = validation
        self._rows = rows
        self.weight = torch.zeros(())
        self.seen: list[list[int]] = []

    def weights(self) -> Mapping[str, Tensor]:
        return {"weight": self.weight}

    def step(self, positions: Tensor) -> Tensor:
        self.seen.append(positions.tolist())
        epoch = (sum(map(len, self.seen)) - 1) // self._rows
        self.weight.fill_(epoch + 1)
        return torch.tensor(self._training[epoch] * len(positions))

    def validation_loss(self) -> float | None:
        return None if self._validation is None else self._validation[int(self.weight) - 1]


def test_every_epoch_passes_over_all_rows_in_a_new_order() -> None:
    """Batches are as large as asked, the last one holds what is left."""
    trainee = Scripted([3.0, 2.0], rows=5)

    course = run(trainee, Plan(5, 2, 2, "mse"), np.random.default_rng(0), silent)

    assert [len(batch) for batch in trainee.seen] == [2, 2, 1, 2, 2, 1]
    first, second = (list(chain(*batches)) for batches in (trainee.seen[:3], trainee.seen[3:]))
    assert sorted(first) == sorted(second) == list(range(5))
    assert first != second
    assert course == Course([3.0, 2.0], [], 2)


def test_training_stops_when_nothing_improves_and_keeps_the_best() -> None:
    """Two epochs without a better training loss end it; the weights are the best epoch's."""
    trainee = Scripted([3.0, 1.0, 1.5, 1.0, 0.1])

    course = run(trainee, Plan(4, 4, 5, "mse", keep="training", patience=2), np.random.default_rng(0), silent)

    assert len(course.training) == 4
    assert course.kept_epoch == 2
    assert float(trainee.weight) == 2


def test_the_best_epoch_is_chosen_by_validation_rows() -> None:
    """Training loss falls on and on, which says nothing."""
    trainee = Scripted([3.0, 2.0, 1.0], [2.0, 1.0, 4.0])

    course = run(trainee, Plan(4, 4, 3, "mae", keep="validation"), np.random.default_rng(0), silent)

    assert course == Course([3.0, 2.0, 1.0], [2.0, 1.0, 4.0], 2)
    assert float(trainee.weight) == 2


def test_the_last_batch_of_an_epoch_may_decide() -> None:
    """Its mean is over the rows that it has: 1 of 5 in batches of 2."""

    class LastBatches(Scripted):
        def step(self, positions: Tensor) -> Tensor:
            summed = super().step(positions)
            return torch.tensor([5.0, 1.0, 3.0][int(self.weight) - 1]) if len(positions) == 1 else summed

    trainee = LastBatches([1.0, 2.0, 0.1], rows=5)

    run(trainee, Plan(5, 2, 3, "mse", keep="last batch"), np.random.default_rng(0), silent)

    assert float(trainee.weight) == 2


def test_without_choosing_the_last_epoch_counts() -> None:
    """As in notebooks that keep what they have at the end."""
    trainee = Scripted([1.0, 2.0, 3.0])

    assert run(trainee, Plan(4, 4, 3, "mse"), np.random.default_rng(0), silent).kept_epoch == 3
    assert float(trainee.weight) == 3


def test_progress_says_how_it_goes_and_ends_at_the_end() -> None:
    """Figures have names, and a training that stops early fills its bar."""
    told: list[tuple[int, int, str, Mapping[str, float] | None]] = []

    run(
        Scripted([1.0, 1.0, 1.0], [2.0, 2.0, 2.0]),
        Plan(4, 4, 9, "mse", keep="validation", patience=1),
        np.random.default_rng(0),
        lambda done, total, message, figures=None: told.append((done, total, message, figures)),
    )

    assert [each[:2] for each in told] == [(1, 9), (9, 9)]
    assert told[-1][2] == "epoch 2 of 9, training mse 1.0000, validation mse 2.0000; stopped, epoch 1 was the best"
    assert told[0][3] == {"training mse": 1.0, "validation mse": 2.0}


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_loss_that_is_no_number_stops_training_and_keeps_the_last_good_weights(bad: float) -> None:
    """The message names the epoch and what to try; it is an error that a person can act on."""
    trainee = Scripted([3.0, 2.0, bad, 1.0])

    with pytest.raises(DivergedFitError, match=r"in epoch 3: .* after epoch 2 are kept.* learning_rate") as caught:
        run(trainee, Plan(4, 4, 4, "mse"), np.random.default_rng(0), silent)

    assert isinstance(caught.value, TrainerError)
    assert (caught.value.epoch, caught.value.kept_epoch) == (3, 2)
    assert float(trainee.weight) == 2


def test_a_loss_that_never_was_a_number_keeps_nothing() -> None:
    """There is no model of weights that were never trained."""
    with pytest.raises(DivergedFitError, match="no epoch was completed") as caught, last_good_model(pytest.fail):
        KeptWeights({}).require_finite(float("nan"), 1)

    assert caught.value.model is None


def test_validation_rows_are_a_share_drawn_at_random() -> None:
    """No row is in both parts, and something is left to learn from."""
    learn, choose = split_validation(100, 0.2, np.random.default_rng(0))

    assert len(choose) == 20
    assert sorted([*learn.tolist(), *choose.tolist()]) == list(range(100))
    assert [len(part) for part in split_validation(1, 0.9, np.random.default_rng(0))] == [1, 0]
