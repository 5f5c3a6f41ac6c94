"""Stops a training whose loss is no longer a number, and keeps what was good. Knows weights and epochs; knows no model.

kept = KeptWeights(network.state_dict())
with last_good_model(lambda: Network(...)):
for epoch in 1, 2, ...:
kept.require_finite(loss, epoch)    # as often as one likes: restores and raises DivergedFitError
kept.keep(epoch)                    # after an epoch that went well
"""

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor

from trainer.errors import DivergedError
from two_tower.serving import Model


class DivergedFitError(DivergedError):
    """A loss is not finite.

    Attributes:
        epoch: In which it happened, counted from 1.
        kept_epoch: After which the weights were kept that are in the network now, 0 if none were.
        model: Made of those weights, None if none were kept.
    """

    def __init__(self, loss: float, epoch: int, kept_epoch: int) -> None:
        kept = f"the weights after epoch {kept_epoch} are kept" if kept_epoch else "no epoch was completed before"
        super().__init__(
            f"the loss is {loss} in epoch {epoch}: training stopped, {kept}. "
            "A smaller learning_rate would be the first thing to try"
        )
        self.epoch = epoch
        self.kept_epoch = kept_epoch
        self.model: Model | None = None


class KeptWeights:
    """The weights of one epoch, beside those that are being trained."""

    def __init__(self, live: Mapping[str, Tensor]) -> None:
        """Takes the tensors that training changes in place; keeps nothing yet."""
        self._live = {name: tensor.detach() for name, tensor in live.items()}
        self._kept: dict[str, Tensor] = {}
        self.epoch = 0
        """After which the kept weights were, 0 while none are."""

    def keep(self, epoch: int) -> None:
        """Copies the weights as they are after this epoch."""
        self._kept = {name: tensor.clone() for name, tensor in self._live.items()}
        self.epoch = epoch

    def kept(self) -> Mapping[str, Tensor]:
        """Returns the weights that are kept."""
        return self._kept

    def take(self, weights: Mapping[str, Tensor], epoch: int) -> None:
        """Keeps weights that an earlier run of the training kept after this epoch."""
        self._kept = dict(weights)
        self.epoch = epoch

    def put_back(self) -> None:
        """Makes the kept weights, if there are any, those of the network again."""
        with torch.no_grad():
            for name, tensor in self._kept.items():
                self._live[name].copy_(tensor)

    def require_finite(self, loss: float, epoch: int) -> None:
        """Puts the kept weights back if a loss is not finite.

        Raises:
            DivergedFitError: It is not.
        """
        if not math.isfinite(loss):
            self.put_back()
            raise DivergedFitError(loss, epoch, self.epoch)


@contextmanager
def last_good_model(make: Callable[[], Model]) -> Iterator[None]:
    """Gives a `DivergedFitError` that passes through the model of the weights that were kept."""
    try:
        yield
    except DivergedFitError as error:
        if error.kept_epoch:
            error.model = make()
        raise
