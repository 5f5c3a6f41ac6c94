"""Measures how far ratings lie from what `marquee` predicts, beside how far it believes. Knows no row to be judged on.

What the model believes is made of three parts: what is not known of the user, what is not known of the movie, noise. It
takes the vectors of movies for exact and its noise from rows that it learned from, so on small data it believes too
little: 80% intervals held 74 to 78% (docs/experiments.md, 2026-11-22). So most of the training rows make a clone, whose
errors on the others say what each part is to be multiplied by. What is asked of the clone is what will be asked of the
model: users of whom little is known, rows among the known ones, and rows that come after all of them, which lie
farther off; the last two weigh the same, since nobody knows which of them a caller means.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import scipy.optimize
from numpy.typing import NDArray

from trainer.dataset import Dataset, Interactions
from trainer.evaluation import evaluate, user_columns
from trainer.histories import HistoryLayout
from two_tower.models.marquee import Marquee

DEVIATIONS_STAGE = "deviations"

_THINNED = 0.15
"""Share of the users of whom the clone is told little: a number of their ratings drawn evenly on a log scale."""

_ASKED_OF_THINNED = 20
"""Rows asked of each of them at most: more of one user say little more."""

_ASKED_OF_OTHERS = 0.05
"""Share of the other users' rows that is asked among what is known, and again after it, of each user one at least."""

_MIN_ASKED = 400
"""Rows below which nothing is measured: the 80% quantile of so many errors is known to 2% of coverage (Serfling 1980,
section 2.3.3)."""

_NORMAL_80 = 1.2816
"""Deviations on either side of its mean that hold 80% of a normal distribution; what serving makes an interval of."""

_LEAST, _MOST = -np.log(16.0), np.log(16.0)
"""Bounds of a factor's logarithm: a part that hardly differs between rows has no factor of its own to be found."""


@dataclass(frozen=True, slots=True)
class VarianceFactors:
    """What the parts of a rating's variance are to be multiplied by.

    Attributes:
        user: What is not known of the user.
        movie: What is not known of the movie.
        noise: What is left where both are known exactly.
    """

    user: float = 1.0
    movie: float = 1.0
    noise: float = 1.0


@dataclass(frozen=True, slots=True)
class Questions:
    """Training rows divided for the measurement; a row may be in neither part.

    Attributes:
        told: True for the rows that the clone learns from. [n]
        asked: Positions of the rows that it is asked. [q]
        weights: Of each of these. [q]
    """

    told: NDArray[np.bool_]
    asked: NDArray[np.int64]
    weights: NDArray[np.float64]


def measure_factors(
    data: Dataset, clone: Callable[[Dataset], Marquee], rng: np.random.Generator
) -> VarianceFactors | None:
    """Returns what the parts of a deviation are to be multiplied by so that 80% intervals hold 80%.

    Args:
        data: Its interactions are the training rows.
        clone: Fits the rating head to what it is given.
        rng: Draws the questions.

    Returns:
        The factors, None where there are too few rows to measure anything.
    """
    rows = data.interactions
    rated = np.flatnonzero(~np.isnan(rows.ratings))
    questions = draw_questions(rows.take(rated), data.has_times, rng)
    if len(questions.asked) < _MIN_ASKED:
        return None
    is_told = np.ones(len(rows), np.bool_)
    is_told[rated] = questions.told
    told, asked = rows.take(is_told), rows.take(rated[questions.asked])
    model = clone(replace(data, interactions=told))
    predicted = evaluate(model, data, told, asked, protocol="deviations").predicted
    users, positions = np.unique(asked.user_rows, return_inverse=True)
    columns = user_columns(data, HistoryLayout(told, len(data.user_ids)), users)
    parts = model.variance_parts(columns, model.embed_movies(data.movies), positions, asked.movie_rows.astype(np.int64))
    return fit_factors(np.abs(predicted - asked.ratings), np.stack(parts), questions.weights)


def draw_questions(rows: Interactions, timed: bool, rng: np.random.Generator) -> Questions:
    """Draws what the clone learns from and what it is asked.

    Args:
        rows: Rows with ratings.
        timed: Whether they have an order.
        rng: Draws.
    """
    sizes = np.bincount(rows.user_rows)  # [U]
    starts = np.concatenate(([0], np.cumsum(sizes)))
    tie = rng.random(len(rows))
    by_chance = np.lexsort((tie, rows.user_rows))
    by_time = np.lexsort((tie, rows.event_times_ms, rows.user_rows)) if timed else by_chance
    user = rows.user_rows[by_chance]  # of each place in either order
    place = np.arange(len(rows)) - starts[user]
    thinned = (rng.random(len(sizes)) < _THINNED) & (sizes > 1)
    told_of = np.floor(np.maximum(sizes, 1) ** rng.random(len(sizes)))
    in_order = thinned & (rng.random(len(sizes)) < 0.5) & timed

    told = np.ones(len(rows), np.bool_)
    among, after = np.zeros(len(rows), np.bool_), np.zeros(len(rows), np.bool_)
    for order, asked, whom in ((by_chance, among, thinned & ~in_order), (by_time, after, in_order)):
        beyond = place - told_of[user]
        told[order[whom[user] & (beyond >= 0)]] = False
        asked[order[whom[user] & (beyond >= 0) & (beyond < _ASKED_OF_THINNED)]] = True
    others = ~thinned[rows.user_rows]
    if timed:
        newest = sizes[user] - place <= np.maximum(1, np.round(_ASKED_OF_OTHERS * sizes[user]))
        after[by_time[newest & ~thinned[user] & (sizes[user] > 2)]] = True
    among |= others & ~after & (rng.random(len(rows)) < _ASKED_OF_OTHERS)
    told &= ~(among | after)

    positions = np.flatnonzero(among | after)
    weights = np.where(after[positions], 1 / max(1, int(after.sum())), 1 / max(1, int(among.sum())))
    return Questions(told, positions, weights)


def fit_factors(
    errors: NDArray[np.floating], parts: NDArray[np.floating], weights: NDArray[np.float64]
) -> VarianceFactors:
    """Returns the factors that make errors of these sizes likeliest, brought to where 80% intervals hold 80% of them.

    First quasi-likelihood of a normal distribution whose variance is the sum of the parts (Pukelsheim 1976, "Estimating
    variance components in linear models"); then all by one factor, the quantile of what the errors are in such
    deviations, as in split conformal inference (Lei et al. 2018, section 5.2).

    Args:
        errors: Absolute. [q]
        parts: Of each error's variance: of user, of movie, noise. [3, q]
        weights: Of each error. [q]
    """
    shares = weights / weights.sum()
    squares = np.square(errors, dtype=np.float64)

    def unlikelihood(logs: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        factors = np.exp(logs)
        variances = factors @ parts  # [q]
        slopes = shares * (1 / variances - squares / variances**2)
        return float(shares @ (np.log(variances) + squares / variances)), factors * (parts @ slopes)

    found = scipy.optimize.minimize(
        unlikelihood, np.zeros(3), jac=True, method="L-BFGS-B", bounds=[(_LEAST, _MOST)] * 3
    )
    factors = np.exp(found.x)
    in_deviations = errors / np.sqrt(factors @ parts)
    order = np.argsort(in_deviations)
    quantile = in_deviations[order][np.searchsorted(np.cumsum(shares[order]), 0.8)]
    factors *= (quantile / _NORMAL_80) ** 2
    return VarianceFactors(*(float(factor) for factor in factors))
