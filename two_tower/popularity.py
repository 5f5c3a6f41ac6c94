"""Holds how popular a checkpoint's movies are of late: what is answered to whom nothing is known. Knows no user.

Every model ranks such a user in its own way, most of them by all that was ever watched; what people watch now is nearer
to what the next one will (benchmarks/results/popularity_half_life.json).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class PopularityRecord:
    """What a manifest says of it.

    Attributes:
        half_life_days: After which a view counts half; None where there are no times.
        sha256: Hash of its file.
    """

    half_life_days: float | None
    sha256: str


@dataclass(frozen=True, slots=True, eq=False)
class Popularity:
    """One score for each movie that a checkpoint knows.

    Attributes:
        half_life_days: As in the record.
        scores: In the order of the checkpoint's vocabulary of movies. float32 [I]
    """

    half_life_days: float | None
    scores: NDArray[np.float32]

    def over(self, vocabulary: Sequence[str], movie_ids: Sequence[str]) -> NDArray[np.float32]:
        """Returns the score of each movie of a catalogue, 0 for what the checkpoint does not know. float32 [M]."""
        row_of = {movie_id: row for row, movie_id in enumerate(vocabulary)}
        rows = np.array([row_of.get(movie_id, -1) for movie_id in movie_ids], np.int64)
        scores: NDArray[np.float32] = np.where(rows >= 0, self.scores[rows], np.float32(0))
        return scores
