"""Steps of SGD on the towers of two-tower-history, with gradients written out. Knows torch's towers; knows no data set.

A step of the notebook's batch of 64 is 9 million multiplications: 160 µs. Through autograd and an optimiser's loop over
parameters it takes ten times as long (docs/experiments.md), so here one compiled loop goes through a block of batches.
`tests/trainer/fits/test_tower_steps.py` holds it to what autograd gives.
"""

from typing import Any

import numpy as np
from torch import Tensor, nn

from trainer.fits.tower_kernels import (
    ACTIVATIONS,
    Dense,
    Features,
    Floats,
    Ids,
    Layer,
    Passage,
    Rule,
    Samples,
    Tower,
    take_steps,
)
from two_tower.models.two_tower_history import Towers


class TowerSteps:
    """SGD with momentum on dense weights, `RowSgd`'s on the two id tables."""

    def __init__(
        self, towers: Towers, activation: str, *, unit_target: bool, learning_rate: float, momentum: float
    ) -> None:
        """Takes the towers, which it changes in place.

        Args:
            towers: One or two layers each, outputs not normalised.
            activation: After each layer.
            unit_target: Whether sigmoid(dot) is fitted, else max(0, dot).
            learning_rate: Of each step.
            momentum: 0 to below 1.
        """
        deep = len(towers.user_layers) == 2
        self._rule = Rule(
            deep, ACTIVATIONS.index(activation), unit_target, np.float32(learning_rate), np.float32(momentum)
        )
        self._ids = Ids(_array(towers.user_table), _array(towers.movie_table))
        self._weights = Dense(
            Features(
                _array(towers.gender_table),
                _array(towers.occupation_table),
                _array(towers.genre_table),
                _layer(towers.age),
                _layer(towers.year),
            ),
            Tower(_layer(towers.user_layers[0]), _layer(towers.user_layers[-1])),
            Tower(_layer(towers.movie_layers[0]), _layer(towers.movie_layers[-1])),
        )
        self._momenta: Dense = _zeros_like(self._weights)

    def train(self, samples: Samples, batch_size: int) -> float:
        """Takes a step on each batch in turn; returns the sum of squared errors, each before its step."""
        unsigned = samples._replace(
            users=samples.users.astype(np.uint64),
            genders=samples.genders.astype(np.uint64),
            occupations=samples.occupations.astype(np.uint64),
            movies=samples.movies.astype(np.uint64),
            history=samples.history.astype(np.uint64),
        )
        # Room of its own for each call: several threads may take steps on these weights at once.
        gradients: Dense = _zeros_like(self._weights)
        passages, d_passages = self._passages(batch_size), self._passages(batch_size)
        squared_error: float = take_steps(
            unsigned, self._ids, self._weights, self._momenta, gradients, passages, d_passages, self._rule
        )
        return squared_error

    def _passages(self, batch_size: int) -> tuple[Passage, Passage]:
        user_tower, movie_tower, deep = self._weights.user_tower, self._weights.movie_tower, self._rule.deep
        return Passage.through(user_tower, batch_size, deep=deep), Passage.through(movie_tower, batch_size, deep=deep)


def _array(parameter: Tensor) -> Floats:
    array: Floats = parameter.detach().numpy()
    return array


def _layer(layer: nn.Module) -> Layer:
    assert isinstance(layer, nn.Linear)
    return Layer(_array(layer.weight), _array(layer.bias))


def _zeros_like(weights: Any) -> Any:
    """Returns zeros in the shape of an array, or of each array in named tuples."""
    if isinstance(weights, np.ndarray):
        return np.zeros_like(weights)
    return type(weights)(*(_zeros_like(part) for part in weights))
