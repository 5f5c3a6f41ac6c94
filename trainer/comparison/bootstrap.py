"""Says how sure a difference between two contenders is: paired bootstrap over users. Knows sums per user, no model.

Users are drawn with replacement and bring all their rows along, in every split at once: ratings of one user are not
independent of each other, and neither are his rows in two splits (cluster bootstrap: Field & Welsh 2007, section 2.2;
for ratings Owen 2007, which would draw movies too). Both contenders get the same draw, so what is hard for both
cancels. The interval is the percentile interval (Efron & Tibshirani 1993, section 13.3). Seeds are not drawn: an
interval speaks of other users, not of other fits; those are averaged over.

scipy.stats.bootstrap draws rows or pairs of rows, not clusters with weights, so the loop is here.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

NUM_DRAWS = 2000
"""Draws for the ends of a 95% interval; a thousand or two are enough (Efron & Tibshirani 1993, section 14.3)."""
_DRAWS_AT_ONCE = 32 << 20
"""Weights held at once: 128 MiB of float32."""


@dataclass(frozen=True, slots=True)
class UserSums:
    """What a mean over rows or users is made of, by user: the metric is Σ total / Σ weight, its root if `is_root`.

    Attributes:
        users: Which users, each once. [B]
        totals: Sum of the errors or gains of each. float64 [B]
        weights: How many rows it is the sum of. float64 [B]
        is_root: Whether the metric is the root of the mean.
    """

    users: NDArray[np.integer]
    totals: NDArray[np.float64]
    weights: NDArray[np.float64]
    is_root: bool = False


@dataclass(frozen=True, slots=True)
class Interval:
    """A difference and its 95% interval."""

    difference: float
    low: float
    high: float

    @property
    def excludes_zero(self) -> bool:
        """Tells whether the difference is there at that confidence."""
        return self.low > 0 or self.high < 0


def paired_interval(
    contender: Sequence[UserSums],
    reference: Sequence[UserSums],
    *,
    seed: int = 0,
    num_draws: int = NUM_DRAWS,
    level: float = 0.95,
) -> Interval:
    """Returns contender − reference, mean over splits, with its interval.

    Args:
        contender: One for each split.
        reference: The same splits in the same order, same users and rows.
        seed: Seed of the draws.
        num_draws: How often users are drawn.
        level: Share of draws that the interval holds.
    """
    if not contender or len(contender) != len(reference):
        raise ValueError(f"{len(contender)} splits of the contender, {len(reference)} of the reference")
    everybody = np.unique(np.concatenate([sums.users for sums in (*contender, *reference)]))
    sides = [[_table(sums, everybody) for sums in side] for side in (contender, reference)]
    once = np.ones((1, len(everybody)), np.float32)
    difference = float(_mean_metric(sides[0], once)[0] - _mean_metric(sides[1], once)[0])
    rng = np.random.default_rng(seed)
    at_once = max(1, _DRAWS_AT_ONCE // max(1, len(everybody)))
    drawn: list[NDArray[np.float64]] = []
    for start in range(0, num_draws, at_once):
        size = min(at_once, num_draws - start)
        weights = rng.multinomial(len(everybody), np.full(len(everybody), 1 / len(everybody)), size).astype(np.float32)
        drawn.append(_mean_metric(sides[0], weights) - _mean_metric(sides[1], weights))
    low, high = np.nanquantile(np.concatenate(drawn), [(1 - level) / 2, (1 + level) / 2])
    return Interval(difference, float(low), float(high))


def _table(sums: UserSums, everybody: NDArray[np.integer]) -> tuple[NDArray[np.float64], bool]:
    """Lays the sums out over all users: [U, 2]."""
    table = np.zeros((len(everybody), 2))
    table[np.searchsorted(everybody, sums.users)] = np.stack([sums.totals, sums.weights], axis=1)
    return table, sums.is_root


def _mean_metric(
    splits: Sequence[tuple[NDArray[np.float64], bool]], weights: NDArray[np.float32]
) -> NDArray[np.float64]:
    """Returns the metric under each draw, mean over splits. [draws]."""
    values = []
    for table, is_root in splits:
        total, weight = (weights.astype(np.float64) @ table).T  # [draws]
        with np.errstate(invalid="ignore", divide="ignore"):
            mean = total / weight
        values.append(np.sqrt(mean) if is_root else mean)
    return np.asarray(np.mean(values, axis=0), np.float64)
