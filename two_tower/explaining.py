"""Says what in a user's history speaks for a recommended movie. Knows serving forms; knows no model by name and no RPC.

A movie's lead is its ranking score less the mean score, for the same user, of reference movies: scores of a softmax are
known up to a constant of the user, and what lifts all movies alike recommends none. The lead is the sum of what each
history entry adds and of the rest (popularity, profile, trained vector). Shares are of what adds to the lead; what
takes from it is left out, so that shares lie between 0 and 1 and add up to 1.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from two_tower.heads import Heads
from two_tower.top_k import Scorer
from two_tower.user_columns import UserColumns

NUM_REFERENCES = 64
"""Reference movies: the standard error of their mean is an eighth of the spread of scores."""

LEFT_OUT_AT_MOST = 50
"""Newest entries that are left out in turn where a model cannot say what each adds: each costs an embedding."""

MIN_SHARE = 1e-3
"""Smaller shares are rounding as far as one can tell: float32 scores carry six digits."""


@dataclass(frozen=True, slots=True, eq=False)
class Explanation:
    """What speaks for one movie.

    Attributes:
        numbers: Catalogue numbers of history entries, largest share first. int64 [n]
        shares: float32 [n]
        unexplained: The share of everything else.
    """

    numbers: NDArray[np.int64]
    shares: NDArray[np.float32]
    unexplained: float


NOTHING = Explanation(np.zeros(0, np.int64), np.zeros(0, np.float32), 1.0)


def explain(
    heads: Heads,
    scorer: Scorer,
    users: UserColumns,
    lists: Sequence[NDArray[np.int64]],
    most: int,
    available: NDArray[np.bool_],
) -> list[list[Explanation]]:
    """Explains each movie of each list, user by user, so that a user's neighbours change nothing.

    Args:
        heads: What ranked.
        scorer: What scores dot products.
        users: Whose lists they are. [B]
        lists: Catalogue numbers of the recommended movies. [B]
        most: Entries named per movie at most.
        available: Movies that may be recommended; the references are of them. bool [M]
    """
    candidates = np.flatnonzero(available)
    places = np.linspace(0, len(candidates) - 1, min(NUM_REFERENCES, len(candidates))).round().astype(np.int64)
    references = candidates[places]  # [R]
    return [
        _explain_one(heads, scorer, users.take(np.array([b])), numbers, references, most)
        for b, numbers in enumerate(lists)
    ]


def _explain_one(
    heads: Heads,
    scorer: Scorer,
    user: UserColumns,
    numbers: NDArray[np.int64],
    references: NDArray[np.int64],
    most: int,
) -> list[Explanation]:
    entries = user.histories.movie_numbers.astype(np.int64)  # [E]
    if not len(entries) or not len(numbers) or not heads.model.uses_history:
        return [NOTHING] * len(numbers)
    asked = np.concatenate([numbers, references])  # [k + R]
    scores = heads.score_pairs(scorer, heads.embed(user), np.zeros(len(asked), np.int64), asked)  # [k + R]
    added = heads.model.history_contributions(user, heads.movies, np.zeros(len(asked), np.int64), asked)
    if added is None:
        added = scores[:, None] - _scores_without(heads, scorer, user, asked)
    added = added.reshape(len(asked), -1).astype(np.float64)  # [k + R, E], or fewer entries
    added = added[: len(numbers)] - added[len(numbers) :].mean(axis=0)  # [k, E]
    leads = scores[: len(numbers)].astype(np.float64) - scores[len(numbers) :].mean(dtype=np.float64)  # [k]
    rest = leads - added.sum(axis=-1)  # [k]
    gains = np.maximum(added, 0)  # [k, E]
    totals = gains.sum(axis=-1) + np.maximum(rest, 0)  # [k]
    # Below it, what seems to add is rounding: six digits of a float32 score, with a margin.
    noise = 1e-5 * np.abs(scores).max()
    return [
        _named(entries, gains[place] / totals[place], most) if totals[place] > noise else NOTHING
        for place in range(len(numbers))
    ]


def _scores_without(heads: Heads, scorer: Scorer, user: UserColumns, asked: NDArray[np.int64]) -> NDArray[np.float32]:
    """Returns the scores of the movies asked for, without each of the newest entries. float32 [k + R, e]."""
    length = len(user.histories.movie_numbers)
    num_left_out = min(length, LEFT_OUT_AT_MOST)
    kept = ~np.eye(num_left_out, length, dtype=np.bool_).ravel()  # [e * E]
    copies = user.take(np.zeros(num_left_out, np.int64))
    histories = replace(
        copies.histories,
        offsets=np.arange(num_left_out + 1, dtype=np.int64) * (length - 1),
        movie_numbers=copies.histories.movie_numbers[kept],
        ratings=copies.histories.ratings[kept],
        event_times_ms=copies.histories.event_times_ms[kept],
    )
    embedded = heads.embed(replace(copies, histories=histories))
    rows = np.tile(np.arange(num_left_out), len(asked))  # [(k + R) * e]
    scores = heads.score_pairs(scorer, embedded, rows, np.repeat(asked, num_left_out))
    return scores.reshape(len(asked), num_left_out)


def _named(entries: NDArray[np.int64], shares: NDArray[np.float64], most: int) -> Explanation:
    named = np.argsort(-shares, kind="stable")[:most]
    named = named[shares[named] >= MIN_SHARE]
    told = shares[named].astype(np.float32)
    return Explanation(entries[named], told, max(0.0, 1.0 - float(told.sum(dtype=np.float64))))
