"""Divides interactions so that some users, or some movies, are strangers to the model. Knows rows; knows no model.

`new-users:F`: a share F of the users is held out with all rows. A fifth of each one's rows, drawn at random, is judged;
the model is told none of the rest, or the first 1, 5 or 20 of a random order of it, or all of it, always on the same
rows and with the same fit. `new-movies:F`: a share F of the movies is held out with all rows, which are judged.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from trainer.dataset import Dataset, Interactions
from trainer.errors import HoldoutError

KNOWN = (0, 1, 5, 20)
"""Ratings that are told of a held-out user; "all" comes on top."""
JUDGED_SHARE = 0.2
FORMS = "new-users:F or new-movies:F (0 < F < 1)"


@dataclass(frozen=True, slots=True)
class ColdStart:
    """Who is held out: a share of the users or of the movies."""

    kind: Literal["new-users", "new-movies"]
    share: float

    def __str__(self) -> str:
        return f"{self.kind}:{self.share:g}"


@dataclass(frozen=True, slots=True)
class ColdParts:
    """The rows of a cold start.

    Attributes:
        train: To fit on.
        held_out: To be judged on.
        known: View name → rows that stand in the histories when it is asked.
    """

    train: Interactions
    held_out: Interactions
    known: Mapping[str, Interactions]


def is_cold_start(text: str) -> bool:
    """Tells whether a holdout is one of these, well formed or not."""
    return text.startswith(("new-users", "new-movies"))


def parse_cold_start(text: str) -> ColdStart:
    """Reads the form of a command line.

    Raises:
        HoldoutError: It is none.
    """
    kind, _, amount = text.partition(":")
    try:
        share = float(amount)
    except ValueError:
        share = float("nan")
    if not 0 < share < 1 or kind not in ("new-users", "new-movies"):
        raise HoldoutError(f"--holdout {text}: give {FORMS}, for example new-users:0.1")
    return ColdStart("new-users" if kind == "new-users" else "new-movies", share)


def divide_cold(data: Dataset, cold: ColdStart, seed: int) -> ColdParts:
    """Divides a data set.

    Raises:
        HoldoutError: Too little is left on one side.
    """
    rng = np.random.default_rng(seed)
    rows = data.interactions
    parts = _new_users(rows, cold.share, rng) if cold.kind == "new-users" else _new_movies(rows, cold.share, rng)
    if not len(parts.held_out) or not len(parts.train):
        raise HoldoutError(
            f"--holdout {cold}: leaves {len(parts.train):,} rows to learn from and {len(parts.held_out):,} to be "
            f"judged on; held-out users need {_ENOUGH} rows each, and held-out movies one; try another share"
        )
    return parts


_ENOUGH = int(np.ceil(KNOWN[-1] / (1 - JUDGED_SHARE)))
"""Rows that a user needs so that the largest count can be told of him: 25."""


def _new_users(rows: Interactions, share: float, rng: np.random.Generator) -> ColdParts:
    sizes = np.bincount(rows.user_rows)
    eligible = np.flatnonzero(sizes >= _ENOUGH)
    strangers = rng.permutation(eligible)[: max(1, int(share * len(eligible)))] if len(eligible) else eligible
    strange = np.isin(rows.user_rows, strangers)
    order = rng.permutation(len(rows))
    order = order[np.argsort(rows.user_rows[order], kind="stable")]  # users together, each one's rows drawn
    starts = np.concatenate(([0], np.cumsum(sizes)))[:-1]
    place = np.empty(len(rows), np.int64)
    place[order] = np.arange(len(rows)) - starts[rows.user_rows[order]]
    num_judged = np.maximum(1, (JUDGED_SHARE * sizes).astype(int))[rows.user_rows]
    place -= num_judged  # the judged rows are below 0, the rest are told in this order
    known: dict[str, Interactions] = {
        str(count): rows.take(strange & (place >= 0) & (place < count)) for count in KNOWN
    }
    known["all"] = rows.take(strange & (place >= 0))
    return ColdParts(rows.take(~strange), rows.take(strange & (place < 0)), known)


def _new_movies(rows: Interactions, share: float, rng: np.random.Generator) -> ColdParts:
    watched = np.unique(rows.movie_rows)
    strangers: NDArray[np.int32] = rng.permutation(watched)[: max(1, int(share * len(watched)))]
    strange = np.isin(rows.movie_rows, strangers)
    train = rows.take(~strange)
    # Of a user without any other row nothing could be said: that is another question.
    judged = strange & np.isin(rows.user_rows, train.user_rows)
    return ColdParts(train, rows.take(judged), {"new movies": train})
