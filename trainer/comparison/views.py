"""Asks one fitted model in several ways. Knows rows; knows no model by name.

"held_out" is how a service would be asked. The others are mistakes that notebooks made when they judged, so that their
figures can be understood:

    own maps       ids were numbered anew among the held-out rows, so each user and movie was taken for another
    seen histories held-out rows stood in the histories from which they were predicted
    training rows  the rows that were learnt from are judged
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from trainer.dataset import Interactions

HELD_OUT = "held_out"
OWN_MAPS = "own maps"
SEEN_HISTORIES = "seen histories"
TRAINING_ROWS = "training rows"


@dataclass(frozen=True, slots=True)
class View:
    """One way to ask.

    Attributes:
        known: Rows that stand in the histories.
        judged: Rows to be judged on.
    """

    known: Interactions
    judged: Interactions


def make_views(names: Sequence[str], train: Interactions, held_out: Interactions, seed: int) -> dict[str, View]:
    """Returns the ways to ask by name."""
    made: dict[str, Callable[[], View]] = {
        HELD_OUT: lambda: View(train, held_out),
        OWN_MAPS: lambda: View(train, _numbered_anew(train, held_out, seed)),
        SEEN_HISTORIES: lambda: View(_together(train, held_out), held_out),
        TRAINING_ROWS: lambda: View(train, train),
    }
    return {name: made[name]() for name in names}


def _numbered_anew(train: Interactions, held_out: Interactions, seed: int) -> Interactions:
    """Takes the k-th user of the held-out rows for the k-th of the training rows, both in a drawn order."""
    rng = np.random.default_rng(seed)
    orders = [rng.permutation(len(rows)) for rows in (train, held_out)]
    users = _take_for(held_out.user_rows, train.user_rows[orders[0]], held_out.user_rows[orders[1]])
    movies = _take_for(held_out.movie_rows, train.movie_rows[orders[0]], held_out.movie_rows[orders[1]])
    return Interactions(users, movies, held_out.ratings, held_out.event_times_ms)


def _take_for(rows: NDArray[np.int32], theirs: NDArray[np.int32], ours: NDArray[np.int32]) -> NDArray[np.int32]:
    """Returns, for each of `rows`, what stands at its place of first appearance in `theirs` instead of in `ours`."""
    first_of_theirs = theirs[np.sort(np.unique(theirs, return_index=True)[1])]
    first_of_ours = ours[np.sort(np.unique(ours, return_index=True)[1])]
    instead = np.zeros(int(first_of_ours.max(initial=0)) + 1, np.int32)
    instead[first_of_ours] = first_of_theirs[np.arange(len(first_of_ours)) % len(first_of_theirs)]
    return instead[rows]


def _together(train: Interactions, held_out: Interactions) -> Interactions:
    return Interactions(
        np.concatenate((train.user_rows, held_out.user_rows)),
        np.concatenate((train.movie_rows, held_out.movie_rows)),
        np.concatenate((train.ratings, held_out.ratings)),
        np.concatenate((train.event_times_ms, held_out.event_times_ms)),
    )
