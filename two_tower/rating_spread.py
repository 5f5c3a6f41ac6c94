"""Says how far ratings scatter about a prediction, by how many ratings of the user were known. Knows no model.

For models that cannot tell themselves: see `two_tower.serving.ServedModel.rating_deviations`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class RatingSpread:
    """A table: a user with at least counts[i] and fewer than counts[i + 1] known ratings has deviations[i].

    Attributes:
        counts: Lower edges, ascending, the first of them 0.
        deviations: Of the error of a predicted rating, in stars, one for each edge; scaled so that ±1.2816 of it holds
            80% of the ratings that the table was made from.
    """

    counts: tuple[int, ...]
    deviations: tuple[float, ...]

    def problems(self) -> list[str]:
        """Returns what is wrong with the table, one sentence each; of a good one, nothing."""
        found = []
        if len(self.counts) != len(self.deviations) or not self.counts:
            found.append(f"rating_spread has {len(self.counts)} counts and {len(self.deviations)} deviations")
        if list(self.counts) != sorted(set(self.counts)) or (self.counts and self.counts[0] != 0):
            found.append("rating_spread.counts do not ascend from 0")
        if not all(0 < deviation < float("inf") for deviation in self.deviations):
            found.append("rating_spread.deviations are not all above 0")
        return found

    def deviations_of(self, num_ratings: NDArray[np.integer] | Sequence[int]) -> NDArray[np.float32]:
        """Returns the deviation for users with so many known ratings, in stars. float32 [P]."""
        places = np.searchsorted(np.asarray(self.counts), np.asarray(num_ratings, np.int64), side="right") - 1
        return np.asarray(self.deviations, np.float32)[places]
