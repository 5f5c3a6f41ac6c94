"""What a `marquee` checkpoint says beside its weights. Knows no tensor and no training."""

from dataclasses import dataclass

from two_tower.errors import MismatchedCheckpointError
from two_tower.features import Range
from two_tower.serving import RatingScale

SHORT, LONG = "short", "long"
"""Names of the two tables that a history's movies enter the retrieval head through."""


@dataclass(frozen=True, slots=True)
class Memory:
    """One running sum over a user's history, oldest to newest.

    Attributes:
        table: Which table's rows are summed: "short" or "long".
        decay: What one newer event leaves of the sum, above 0 and at most 1; 1 never forgets.
        gain: Weight of the sum in the user's ranking vector.
    """

    table: str
    decay: float
    gain: float


@dataclass(frozen=True, slots=True)
class MarqueeConfig:
    """What the model is, beside its weights.

    Attributes:
        scale: Rating scale of the data; None if it had no ratings, then there is no rating head.
        rating_size: Coordinates of a rating vector; 0 without a rating head.
        ranking_size: Coordinates of a ranking vector.
        memories: Running sums that make the ranking vector.
        noise_variance: Variance of a rating about its prediction, stars².
        cold_noise_variance: Variance on top of it where the movie is made from content, stars².
        spread_variance: Variance of a rating about its prediction where user and movie are known exactly, stars².
        prior_events: Events that a trained user vector is worth less than certainty: its covariance is scaled by
            q / (q + n) for n ratings.
        implicit_damping: Events at which the implicit part of a stranger's prior reaches half its strength.
        data_until_ms: Newest event trained on; 0 for data without times.
        years: Range of the year of release.
        ages: Range of the age.
        ranking_prior_events: Events after which what ranks for everybody and for a profile has faded to 1/e.
        user_variance_factor: What the posterior variance of a user's vector is multiplied by where it tells how sure a
            rating is: errors on rows that were held back say it (`trainer.fits.marquee_deviations`).
    """

    scale: RatingScale | None
    rating_size: int
    ranking_size: int
    memories: tuple[Memory, ...]
    noise_variance: float
    cold_noise_variance: float
    spread_variance: float
    prior_events: float
    implicit_damping: float
    data_until_ms: int
    years: Range
    ages: Range
    ranking_prior_events: float = 8.0
    user_variance_factor: float = 1.0

    def __post_init__(self) -> None:
        problems = []
        if (self.rating_size > 0) != (self.scale is not None) or self.rating_size < 0:
            problems.append("config.rating_size is above 0 exactly if config.scale is given")
        if self.ranking_size <= 0:
            problems.append("config.ranking_size is above 0")
        if not self.noise_variance > 0 or not self.cold_noise_variance >= 0:
            problems.append("config.noise_variance is above 0 and config.cold_noise_variance not below")
        if not self.spread_variance > 0:
            problems.append("config.spread_variance is above 0")
        if not self.user_variance_factor > 0:
            problems.append("config.user_variance_factor is above 0")
        if not self.prior_events > 0 or not self.implicit_damping > 0:
            problems.append("config.prior_events and config.implicit_damping are above 0")
        if not self.ranking_prior_events > 0:
            problems.append("config.ranking_prior_events is above 0")
        if not self.memories:
            problems.append("config.memories holds at least one memory")
        for memory in self.memories:
            if memory.table not in (SHORT, LONG):
                problems.append(f"config.memories has a table {memory.table!r}; tables are {SHORT!r} and {LONG!r}")
            if not 0 < memory.decay <= 1:
                problems.append("config.memories has a decay that is not above 0 and at most 1")
        if problems:
            raise MismatchedCheckpointError(problems)

    @property
    def tables(self) -> tuple[str, ...]:
        """The tables that some memory reads."""
        return tuple(table for table in (SHORT, LONG) if any(memory.table == table for memory in self.memories))
