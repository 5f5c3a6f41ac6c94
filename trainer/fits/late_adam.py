"""Adam over all rows of a table, at the price of the rows that a batch uses. Knows tables and gradients only.

Adam (Kingma & Ba 2015, algorithm 1), as `torch.optim.Adam` does it, moves a row at every step, used or not: what is
left of its mean gradient carries it on, by some ten times what the step itself did. That is no detail where a movie is
used once in a thousand steps, and a notebook that trains `nn.Embedding` relies on it. Here a row makes the steps that
it missed when it is next used, one after the other: the same result, and a step costs what its batch does.
"""

import numba
import numpy as np
from numpy.typing import NDArray

_MEAN_DECAY = np.float32(0.9)
_SQUARE_DECAY = np.float32(0.999)
_MEAN_GAIN = np.float32(0.1)
_SQUARE_GAIN = np.float32(0.001)
_EPSILON = np.float32(1e-8)

_MOST_STEPS = 120
"""After so many steps without a gradient a row's step has shrunk to (.9 / √.999)^120 = 3e-6 of the first one."""


class LateAdam:
    """Follows the gradient of one table."""

    def __init__(
        self, table: NDArray[np.float32], learning_rate: float, *, weight_decay: float = 0.0, late_steps: bool = True
    ) -> None:
        """Takes the table to change, [n, W].

        Args:
            table: Changed in place.
            learning_rate: Of every step.
            weight_decay: Added to the gradient times the weight (coupled L2, as the notebooks had it). It pulls at
                every row at every step, so then a row has to make each step that it missed.
            late_steps: False leaves out the steps that a row missed, moments as they were, as `torch.optim.SparseAdam`
                does: quicker by far where tables are large.
        """
        self._table = table
        self._means = np.zeros_like(table)
        self._squares = np.zeros_like(table)
        self._sums = np.zeros_like(table)
        self._seen = np.zeros(len(table), np.int64)
        self._rate = np.float32(learning_rate)
        self._decay = np.float32(weight_decay)
        self._late_steps = late_steps
        self._step = 0

    def rows(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Returns rows as they are now, missed steps made. [B, W]."""
        if self._late_steps:
            _catch_up(self._table, self._means, self._squares, self._seen, rows, self._step, self._rate, self._decay)
        return self._table[rows]

    def step(self, rows: NDArray[np.int64], gradients: NDArray[np.float32]) -> None:
        """Takes one step along the gradients [B, W] of rows that `rows` gave before it, which may repeat."""
        self._step += 1
        _step(
            self._table,
            self._means,
            self._squares,
            self._sums,
            self._seen,
            rows,
            gradients,
            self._step,
            self._rate,
            self._decay,
        )

    def finish(self) -> None:
        """Lets every row make the steps that it missed."""
        self.rows(np.arange(len(self._table)))


# Plain loops: array expressions would take the compiler ten times as long.


@numba.njit(nogil=True, error_model="numpy", cache=True)
def _move(weights, mean, square, gradient, scale, norm, decay):  # type: ignore[no-untyped-def]  # pragma: no cover
    """Moves one row along a gradient."""
    for column in range(len(weights)):
        pull = gradient[column] + decay * weights[column]
        mean[column] = _MEAN_DECAY * mean[column] + _MEAN_GAIN * pull
        square[column] = _SQUARE_DECAY * square[column] + _SQUARE_GAIN * pull * pull
        weights[column] -= scale * mean[column] / (np.sqrt(square[column]) * norm + _EPSILON)


@numba.njit(nogil=True, error_model="numpy", cache=True)
def _catch_up(table, means, squares, seen, rows, now, rate, decay):  # type: ignore[no-untyped-def]  # pragma: no cover
    nothing = np.zeros(table.shape[1], np.float32)
    for row in rows:
        missed = now - seen[row]
        if missed <= 0:
            continue
        made = missed if decay > 0 else min(missed, _MOST_STEPS)
        # A row that was never used has no moments and, without weight decay, nowhere to go.
        if seen[row] == 0 and decay == 0:
            made = 0
        mean_power, square_power = 0.9 ** seen[row], 0.999 ** seen[row]
        for _ in range(made):
            mean_power *= 0.9
            square_power *= 0.999
            scale = np.float32(rate / (1 - mean_power))
            norm = np.float32(1 / np.sqrt(1 - square_power))
            _move(table[row], means[row], squares[row], nothing, scale, norm, decay)
        if missed > made:
            left_of_mean, left_of_square = np.float32(0.9 ** (missed - made)), np.float32(0.999 ** (missed - made))
            for column in range(table.shape[1]):
                means[row, column] *= left_of_mean
                squares[row, column] *= left_of_square
        seen[row] = now


@numba.njit(nogil=True, error_model="numpy", cache=True)
def _step(  # type: ignore[no-untyped-def]  # pragma: no cover
    table, means, squares, sums, seen, rows, gradients, now, rate, decay
):
    scale = np.float32(rate / (1 - 0.9**now))
    norm = np.float32(1 / np.sqrt(1 - 0.999**now))
    for place in range(len(rows)):
        for column in range(table.shape[1]):
            sums[rows[place], column] += gradients[place, column]
    for row in rows:
        if seen[row] != now:
            seen[row] = now
            _move(table[row], means[row], squares[row], sums[row], scale, norm, decay)
            for column in range(table.shape[1]):
                sums[row, column] = 0
