"""Holds what a rebuild is asked to do, and chooses the rows it judges on. Knows times and counts; starts nothing."""

from dataclasses import dataclass

import numpy as np

from trainer.dataset import Dataset
from trainer.promotion import MIN_ROWS
from two_tower.manifest import Manifest
from two_tower.registry import STABLE

JUDGED_SHARE = 0.05
"""The newest rows that a candidate is judged on: of 100,000 rows 5,000, whose RMSE is known to 1% (standard error of a
deviation, 1/√2n). More would tell better, of a candidate that knows less of what is new."""

DEFAULT_EXPORT_NAME = "trainer"
DEFAULT_KEEP = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What to do.

    Attributes:
        label: The label that the winner takes.
        model: What to train; None for the model, options and seed of what has the label.
        options: "field=value" texts for its fit; only with `model`.
        judged_share: Share of all rows, the newest, that a candidate is judged on at most.
        forced: Why nothing is to be compared; empty if it is.
        resync: Whether to go on although the event log does not connect.
        reported: Whether to write report.html and report.json beside the checkpoint.
        keep: Snapshots that are kept, the newest included, and versions of each label that may be gone back to.
        export_name: Under what name the log is held back.
    """

    label: str = STABLE
    model: str | None = None
    options: tuple[str, ...] = ()
    judged_share: float = JUDGED_SHARE
    forced: str = ""
    resync: bool = False
    reported: bool = True
    keep: int = DEFAULT_KEEP
    export_name: str = DEFAULT_EXPORT_NAME


def judged_after_ms(data: Dataset, incumbent: Manifest | None, share: float) -> int:
    """Returns the moment after which rows are judged on: later than all that the incumbent was trained on.

    A share of the rows, or twice what a comparison takes if that is more, but never more than half of all; of these
    what is news to the incumbent. A candidate learns from everything before, so that it is at no disadvantage.
    """
    newest_first = np.sort(data.interactions.event_times_ms)[::-1]
    num_judged = min(max(int(share * len(newest_first)), 2 * MIN_ROWS), len(newest_first) // 2)
    boundary_ms = int(newest_first[num_judged]) if len(newest_first) else 0
    return max(boundary_ms, incumbent.data_until_ms if incumbent is not None else 0)


def num_later(data: Dataset, moment_ms: int) -> int:
    """Returns how many rows are later than a moment."""
    return int((data.interactions.event_times_ms > moment_ms).sum())
